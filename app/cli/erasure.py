"""`shepherd tenant export|erase` and `shepherd seal …`: what is kept of whom, and under which keys.

They work on the database, without a server; one may run meanwhile.
"""

from __future__ import annotations

from typing import Any

from app.cli.commands import AddCommand

_WORK = "app.cli.erasure_work"
_WHERE = ("server", "db", "history")


def add_to_tenant(of_tenant: Any, add: AddCommand) -> None:
    """Add the commands of `shepherd tenant`; `add` makes one, with the flags of the sections it needs."""
    export = add(
        of_tenant, "export", f"{_WORK}:export_tenant", "print everything that is kept, a JSON line each", *_WHERE
    )
    erase = add(
        of_tenant, "erase", f"{_WORK}:erase_tenant", "forget everything that is kept, at once and for good", *_WHERE
    )
    for command in (export, erase):
        command.add_argument("tenant")
        command.add_argument("--end-user", metavar="ID", help="only what requests with this safety_identifier made")
    erase.add_argument("--yes", action="store_true", required=True, help="it cannot be undone")


def add_commands(commands: Any, add: AddCommand) -> None:
    """Add `shepherd seal`."""
    seal = commands.add_parser("seal", help="change the keys content is sealed with", allow_abbrev=False)
    of_seal = seal.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add(of_seal, "rotate", f"{_WORK}:rotate", "seal all tenants' keys with the master key in use", *_WHERE)
    renew = add(
        of_seal, "renew", f"{_WORK}:renew_key", "give a tenant a new key for what is stored from now on", *_WHERE
    )
    renew.add_argument("tenant")
    add(
        of_seal,
        "upgrade",
        f"{_WORK}:upgrade",
        "seal what older versions stored in clear, or under other keys",
        *_WHERE,
        "mcp",
    )
