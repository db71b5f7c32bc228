"""Parsing and dispatch. `shepherd --some-flag …` without a command means `shepherd serve --some-flag …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from app.boot.listening import StartError
from app.cli import erasure, mcp, settings, streams, tenants, work, workers
from app.cli.flags import add_flags
from app.settings.sources import SettingsError

GATEWAY = ("server", "responses", "routing", "backends", "tenancy", "mcp", "db", "history")

Command = Callable[[argparse.Namespace], int]


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="shepherd",
        description="A Responses API server between agents and models.",
        epilog="`shepherd --worker-urls URL ...` is `shepherd serve --worker-urls URL ...`. Every setting can also "
        "come from a file (--config) or the environment (SHEPHERD__SECTION__NAME); see `shepherd config docs`.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"shepherd {version('shepherd')}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _command(commands, "serve", work.serve, "run the gateway", *GATEWAY)
    _command(commands, "demo", work.demo, "run the gateway with a simulated worker and a demo MCP server", *GATEWAY)
    _command(commands, "simulate", work.simulate, "run a simulated worker", "simulator")
    migrate = _command(commands, "migrate", work.migrate, "bring the database up to date", "db")
    migrate.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 when tables and migrations differ"
    )
    config = commands.add_parser("config", help="show, check or document the settings", allow_abbrev=False)
    of_config = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _command(of_config, "explain", settings.explain, "show every value and where it came from", *GATEWAY)
    _command(of_config, "check", settings.check, "check the settings", *GATEWAY)
    _command(of_config, "docs", settings.docs, "print docs/configuration.md")
    tenants.add_commands(commands, _command)
    mcp.add_commands(commands)
    workers.add_commands(commands)
    erasure.add_commands(commands, _command)
    _command(commands, "check-stream", streams.check, "check a recorded event stream, read from stdin")
    return top


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],  # pyright: ignore[reportPrivateUsage]
    name: str,
    run: Command,
    about: str,
    *sections: str,
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False)
    made.set_defaults(run=run)
    add_flags(made, *sections)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code: 0 done, 1 failed, 2 wrong usage or settings."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"):
        words.insert(0, "serve")
    parsed = parser().parse_args(words)
    run: Command = parsed.run
    try:
        return run(parsed)
    except SettingsError as error:
        for problem in error.problems:
            print(f"shepherd: {problem}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"shepherd: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
