"""What `shepherd tenant …` and `shepherd key …` do."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from app.boot import tenants
from app.cli.running import result_of


def create_tenant(parsed: argparse.Namespace) -> int:
    """Make a tenant."""
    made = result_of(parsed, lambda settings: tenants.create_tenant(settings, parsed.name))
    print(f"Made the tenant {made.id}.")
    return 0


def list_tenants(parsed: argparse.Namespace) -> int:
    """List tenants."""
    rows = result_of(parsed, tenants.list_tenants)
    _table(("TENANT", "CREATED", "REVOKED"), ((row.id, _day(row.created_at), _day(row.revoked_at)) for row in rows))
    return 0


def revoke_tenant(parsed: argparse.Namespace) -> int:
    """Lock a tenant out."""
    result_of(parsed, lambda settings: tenants.revoke_tenant(settings, parsed.name))
    print(f"Revoked the tenant {parsed.name}.")
    return 0


def create_key(parsed: argparse.Namespace) -> int:
    """Make a key, and print it."""
    scopes = tuple(dict.fromkeys(parsed.scope or ("data",)))
    key, secret = result_of(
        parsed, lambda settings: tenants.create_key(settings, parsed.tenant, parsed.name, scopes, parsed.expires_in)
    )
    print(f"Made the key {key.id} of {key.tenant} ({', '.join(key.scopes)}). It cannot be shown again:")
    print(secret)
    return 0


def list_keys(parsed: argparse.Namespace) -> int:
    """List keys."""
    rows = result_of(parsed, lambda settings: tenants.list_keys(settings, parsed.tenant))
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
    result_of(parsed, lambda settings: tenants.revoke_key(settings, parsed.id))
    print(f"Revoked the key {parsed.id}.")
    return 0


def _day(moment: int | None) -> str:
    return "-" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
