"""How a command joins the command line.

What a command does is named, not imported: whoever asks for one thing, a simulated worker say, does not wait until a
whole gateway is loaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any, Protocol

from app.cli.flags import add_flags


class AddCommand(Protocol):
    """Adds a command to `commands`, with the flags of the settings' `sections`. `work` is `module:function`."""

    def __call__(self, commands: Any, name: str, work: str, about: str, *sections: str) -> argparse.ArgumentParser: ...


def add_command(commands: Any, name: str, work: str, about: str, *sections: str) -> argparse.ArgumentParser:
    """See `AddCommand`."""
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False
    )
    made.set_defaults(run=work)
    add_flags(made, *sections)
    return made


def work_of(parsed: argparse.Namespace) -> Callable[[argparse.Namespace], int]:
    """What the command does."""
    run: str | Callable[[argparse.Namespace], int] = parsed.run
    return resolve_name(run) if isinstance(run, str) else run
