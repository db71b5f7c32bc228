"""`shepherd tenant …` and `shepherd key …`: who may use the server. They work on the database, without a server."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from app.boot import tenants
from app.cli import erasure
from app.cli.flags import given_flags
from app.settings.load import load
from app.settings.tree import Settings

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

_T = TypeVar("_T")
AddCommand = Callable[..., argparse.ArgumentParser]


def add_commands(commands: Any, add: AddCommand) -> None:
    """Add both commands to the command line; `add` makes one, with the flags of the sections it needs."""
    where = ("server", "db")
    tenant = commands.add_parser("tenant", help="make, list, revoke, export and erase tenants", allow_abbrev=False)
    of_tenant = tenant.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(of_tenant, "create", create_tenant, "make a tenant", *where).add_argument("name", type=_name)
    add(of_tenant, "list", list_tenants, "list all tenants", *where)
    add(of_tenant, "revoke", revoke_tenant, "lock a tenant out, with all its keys", *where).add_argument("name")
    erasure.add_to_tenant(of_tenant, add)
    key = commands.add_parser("key", help="make, list and revoke API keys", allow_abbrev=False)
    of_key = key.add_subparsers(title="commands", metavar="COMMAND", required=True)
    made = add(of_key, "create", create_key, "make a key; it is shown once", *where)
    made.add_argument("tenant")
    made.add_argument("name", type=_name)
    made.add_argument("--scope", action="append", choices=("data", "admin"), help="what it may do (default: data)")
    made.add_argument("--expires-in", type=_duration, metavar="TIME", help="30d, 12h, 90m, 3600s (default: never)")
    add(of_key, "list", list_keys, "list keys", *where).add_argument("--tenant", help="only this tenant's")
    add(of_key, "revoke", revoke_key, "make a key worthless", *where).add_argument("id")


def create_tenant(parsed: argparse.Namespace) -> int:
    """Make a tenant."""
    made = _run(parsed, lambda settings: tenants.create_tenant(settings, parsed.name))
    print(f"Made the tenant {made.id}.")
    return 0


def list_tenants(parsed: argparse.Namespace) -> int:
    """List tenants."""
    rows = _run(parsed, tenants.list_tenants)
    _table(("TENANT", "CREATED", "REVOKED"), ((row.id, _day(row.created_at), _day(row.revoked_at)) for row in rows))
    return 0


def revoke_tenant(parsed: argparse.Namespace) -> int:
    """Lock a tenant out."""
    _run(parsed, lambda settings: tenants.revoke_tenant(settings, parsed.name))
    print(f"Revoked the tenant {parsed.name}.")
    return 0


def create_key(parsed: argparse.Namespace) -> int:
    """Make a key, and print it."""
    scopes = tuple(dict.fromkeys(parsed.scope or ("data",)))
    key, secret = _run(
        parsed, lambda settings: tenants.create_key(settings, parsed.tenant, parsed.name, scopes, parsed.expires_in)
    )
    print(f"Made the key {key.id} of {key.tenant} ({', '.join(key.scopes)}). It cannot be shown again:")
    print(secret)
    return 0


def list_keys(parsed: argparse.Namespace) -> int:
    """List keys."""
    rows = _run(parsed, lambda settings: tenants.list_keys(settings, parsed.tenant))
    _table(
        ("KEY", "TENANT", "NAME", "SCOPES", "CREATED", "EXPIRES", "REVOKED"),
        (
            (
                row.id,
                row.tenant,
                row.name,
                ",".join(row.scopes),
                _day(row.created_at),
                _day(row.expires_at),
                _day(row.revoked_at),
            )
            for row in rows
        ),
    )
    return 0


def revoke_key(parsed: argparse.Namespace) -> int:
    """Make a key worthless."""
    _run(parsed, lambda settings: tenants.revoke_key(settings, parsed.id))
    print(f"Revoked the key {parsed.id}.")
    return 0


def _run(parsed: argparse.Namespace, work: Callable[[Settings], Coroutine[Any, Any, _T]]) -> _T:
    settings = load(given_flags(parsed)).settings
    return asyncio.run(work(settings))


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise argparse.ArgumentTypeError("lower case letters, digits, - and _, at most 63 of them")
    return text


def _duration(text: str) -> int:
    number, unit = text[:-1], text[-1:]
    if not number.isascii() or not number.isdigit() or unit not in _UNITS or int(number) == 0:
        raise argparse.ArgumentTypeError("a number and a unit: 30d, 12h, 90m, 3600s")
    return int(number) * _UNITS[unit]


def _day(moment: int | None) -> str:
    return "-" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
