"""`shepherd tenant export|erase` and `shepherd seal …`: what is kept of whom, and under which keys.

They work on the database, without a server; one may run meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from app.boot import erasure
from app.cli.flags import given_flags
from app.settings.load import load
from app.settings.tree import Settings

AddCommand = Callable[..., argparse.ArgumentParser]
_WHERE = ("server", "db", "history")


def add_to_tenant(of_tenant: Any, add: AddCommand) -> None:
    """Add the commands of `shepherd tenant`; `add` makes one, with the flags of the sections it needs."""
    export = add(of_tenant, "export", export_tenant, "print everything that is kept, a JSON line each", *_WHERE)
    erase = add(of_tenant, "erase", erase_tenant, "forget everything that is kept, at once and for good", *_WHERE)
    for command in (export, erase):
        command.add_argument("tenant")
        command.add_argument("--end-user", metavar="ID", help="only what requests with this safety_identifier made")
    erase.add_argument("--yes", action="store_true", required=True, help="it cannot be undone")


def add_commands(commands: Any, add: AddCommand) -> None:
    """Add `shepherd seal`."""
    seal = commands.add_parser("seal", help="change the keys content is sealed with", allow_abbrev=False)
    of_seal = seal.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(of_seal, "rotate", rotate, "seal all tenants' keys with the master key in use", *_WHERE)
    renew = add(of_seal, "renew", renew_key, "give a tenant a new key for what is stored from now on", *_WHERE)
    renew.add_argument("tenant")
    add(of_seal, "upgrade", upgrade, "seal what older versions stored in clear, or under other keys", *_WHERE, "mcp")


def export_tenant(parsed: argparse.Namespace) -> int:
    """Print what is kept of a tenant or one of its users."""

    def write(line: bytes) -> None:
        sys.stdout.buffer.write(line + b"\n")

    _run(parsed, lambda settings: erasure.export(settings, parsed.tenant, parsed.end_user, write))
    sys.stdout.buffer.flush()
    return 0


def erase_tenant(parsed: argparse.Namespace) -> int:
    """Forget a tenant or one of its users."""
    print(_run(parsed, lambda settings: erasure.erase(settings, parsed.tenant, parsed.end_user)))
    return 0


def rotate(parsed: argparse.Namespace) -> int:
    """Seal all tenants' keys anew."""
    print(_run(parsed, erasure.rotate))
    return 0


def upgrade(parsed: argparse.Namespace) -> int:
    """Seal what is not sealed as it should be."""
    print(_run(parsed, erasure.seal_all))
    return 0


def renew_key(parsed: argparse.Namespace) -> int:
    """Give a tenant a new key."""
    print(_run(parsed, lambda settings: erasure.renew(settings, parsed.tenant)))
    return 0


def _run(parsed: argparse.Namespace, work: Callable[[Settings], Coroutine[Any, Any, str]]) -> str:
    return asyncio.run(work(load(given_flags(parsed)).settings))
