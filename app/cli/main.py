"""Parsing and dispatch. `shepherd --some-flag …` without a command means `shepherd serve --some-flag …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from app.boot.listening import StartError
from app.cli import erasure, mcp, tenants, workers
from app.cli.commands import add_command, work_of
from app.settings.sources import SettingsError

GATEWAY = ("server", "responses", "routing", "backends", "tenancy", "mcp", "db", "history")


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
    add_command(commands, "serve", "app.cli.serve:serve", "run the gateway", *GATEWAY)
    add_command(
        commands,
        "demo",
        "app.cli.serve:demo",
        "run the gateway with a simulated worker and a demo MCP server",
        *GATEWAY,
    )
    add_command(commands, "simulate", "app.cli.simulate:simulate", "run a simulated worker", "simulator")
    migrate = add_command(commands, "migrate", "app.cli.migrate:migrate", "bring the database up to date", "db")
    migrate.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 when tables and migrations differ"
    )
    config = commands.add_parser("config", help="show, check or document the settings", allow_abbrev=False)
    of_config = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_command(of_config, "explain", "app.cli.settings:explain", "show every value and where it came from", *GATEWAY)
    add_command(of_config, "check", "app.cli.settings:check", "check the settings", *GATEWAY)
    add_command(of_config, "docs", "app.cli.settings:docs", "print docs/configuration.md")
    tenants.add_commands(commands, add_command)
    mcp.add_commands(commands)
    workers.add_commands(commands)
    erasure.add_commands(commands, add_command)
    streams = add_command(commands, "check-stream", "app.cli.streams:check", "check a recorded event stream from stdin")
    streams.add_argument("--socket", action="store_true", help="the frames of a whole WebSocket, one a line, not SSE")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code: 0 done, 1 failed, 2 wrong usage or settings."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0].startswith("-") and words[0] not in ("-h", "--help", "--version"):
        words.insert(0, "serve")
    parsed = parser().parse_args(words)
    try:
        return work_of(parsed)(parsed)
    except SettingsError as error:
        for problem in error.problems:
            print(f"shepherd: {problem}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"shepherd: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
