"""Responses to store, and what the tables hold of a tenant."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from unittest.mock import patch

import msgspec
from sqlalchemy import event, func, select

from app.db import prepared
from app.db.engine import Database
from app.history import tables
from app.responses.ports import HistoryStore, StoredItem, StoredResponse


def item(item_id: str, text: str = "hello") -> StoredItem:
    """A message."""
    raw = {"id": item_id, "type": "message", "role": "user", "content": text}
    return StoredItem(item_id, msgspec.Raw(json.dumps(raw, ensure_ascii=False).encode()))


def response(name: str, previous: str | None = None, given: int = 1, made: int = 2) -> StoredResponse:
    """A response called `name` with items `name_i0` … and `name_o0` …"""
    return StoredResponse(
        id=name,
        previous_id=previous,
        created_at=1_700_000_000,
        status="completed",
        model="m",
        snapshot=msgspec.Raw(json.dumps({"id": name, "object": "response"}).encode()),
        input=tuple(item(f"{name}_i{k}") for k in range(given)),
        output=tuple(item(f"{name}_o{k}") for k in range(made)),
    )


def ids(items: Sequence[StoredItem]) -> list[str]:
    """Their ids."""
    return [each.id for each in items]


async def build(store: HistoryStore, tenant: str, tree: dict[str, str | None]) -> None:
    """Save the responses of `tree`: name → previous."""
    for name, previous in tree.items():
        await store.save(tenant, response(name, previous))


async def counts(database: Database, tenant: str) -> tuple[int, int, int]:
    """How many chains, items and responses the tenant has."""
    every = (tables.chains, tables.items, tables.responses)
    async with database.reading() as connection:
        found = [
            await connection.scalar(select(func.count()).select_from(table).where(table.c.tenant == tenant))
            for table in every
        ]
    return found[0] or 0, found[1] or 0, found[2] or 0


@asynccontextmanager
async def counting(database: Database) -> AsyncIterator[list[str]]:
    """Collects the statements that are executed."""
    seen: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        seen.append(statement)

    execute = prepared.execute

    def noted(connection, text, *rest, **options):
        seen.append(text)
        return execute(connection, text, *rest, **options)

    for engine in {database.engine.sync_engine, database.direct}:
        event.listen(engine, "before_cursor_execute", note)
    with patch.object(prepared, "execute", noted):
        yield seen
    for engine in {database.engine.sync_engine, database.direct}:
        event.remove(engine, "before_cursor_execute", note)
