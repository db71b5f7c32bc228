"""`shepherd tenant …` and `shepherd key …`: who may use the server. They work on the database, without a server."""

from __future__ import annotations

import argparse
import re
from typing import Any

from app.cli import erasure
from app.cli.commands import AddCommand

_WORK = "app.cli.tenant_work"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_commands(commands: Any, add: AddCommand) -> None:
    """Add both commands to the command line; `add` makes one, with the flags of the sections it needs."""
    where = ("server", "db")
    tenant = commands.add_parser("tenant", help="make, list, revoke, export and erase tenants", allow_abbrev=False)
    of_tenant = tenant.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(of_tenant, "create", f"{_WORK}:create_tenant", "make a tenant", *where).add_argument("name", type=_name)
    add(of_tenant, "list", f"{_WORK}:list_tenants", "list all tenants", *where)
    add(of_tenant, "revoke", f"{_WORK}:revoke_tenant", "lock a tenant out, with all its keys", *where).add_argument(
        "name"
    )
    erasure.add_to_tenant(of_tenant, add)
    key = commands.add_parser("key", help="make, list and revoke API keys", allow_abbrev=False)
    of_key = key.add_subparsers(title="commands", metavar="COMMAND", required=True)
    made = add(of_key, "create", f"{_WORK}:create_key", "make a key; it is shown once", *where)
    made.add_argument("tenant")
    made.add_argument("name", type=_name)
    made.add_argument("--scope", action="append", choices=("data", "admin"), help="what it may do (default: data)")
    made.add_argument("--expires-in", type=_duration, metavar="TIME", help="30d, 12h, 90m, 3600s (default: never)")
    add(of_key, "list", f"{_WORK}:list_keys", "list keys", *where).add_argument("--tenant", help="only this tenant's")
    add(of_key, "revoke", f"{_WORK}:revoke_key", "make a key worthless", *where).add_argument("id")


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise argparse.ArgumentTypeError("lower case letters, digits, - and _, at most 63 of them")
    return text


def _duration(text: str) -> int:
    number, unit = text[:-1], text[-1:]
    if not number.isascii() or not number.isdigit() or unit not in _UNITS or int(number) == 0:
        raise argparse.ArgumentTypeError("a number and a unit: 30d, 12h, 90m, 3600s")
    return int(number) * _UNITS[unit]
