"""Seals what is not sealed yet, or is sealed in another way: for databases that were begun before sealing was on.

Batch by batch, and as often as one likes: what is sealed is left alone, and so is what changes meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct
from sqlalchemy import Table, and_, func, select, tuple_, update

from app.db.engine import Database
from app.history import entries as log
from app.history.branches import place_of
from app.history.conversations import conversation_place
from app.history.desk_tables import conversations, prompt_versions
from app.history.errors import available
from app.history.keyring import HEAD, Keyring
from app.history.prompts import prompt_place
from app.history.runs import request_place
from app.history.store import response_place
from app.history.tables import entries, items, responses, runs

_BATCH: Final = 200
_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")

# What was stored for a tenant at a place, in clear; None: it is sealed as it should be.
InClear: TypeAlias = Callable[[str, str, bytes], bytes | None]


class Sealed(Struct, frozen=True):
    """A column that holds what is sealed, and where its rows are sealed for."""

    table: Table
    column: str
    place: Callable[[Any], str]


CONTENT: Final[tuple[Sealed, ...]] = (
    Sealed(responses, "snapshot", lambda row: response_place(row.id)),
    Sealed(items, "body", lambda row: place_of(row.chain_id, row.position)),
    Sealed(entries, "body", lambda row: log.place(row.response_id, row.position)),
    Sealed(runs, "request", lambda row: request_place(row.id)),
    Sealed(conversations, "metadata", lambda row: conversation_place(row.id)),
    Sealed(prompt_versions, "body", lambda row: prompt_place(row.prompt_id, row.version)),
)


async def seal_content(database: Database, keyring: Keyring) -> int:
    """Seal all content that is in clear, and name people by a keyed hash; how many values that were.

    Raises `Unavailable`.
    """
    sealed = 0
    for each in CONTENT:
        sealed += await reseal(database, keyring, each, _unsealed, only_unsealed=True)
    for table in (responses, items):
        await _name(database, keyring, table)
    return sealed


async def reseal(
    database: Database, keyring: Keyring, what: Sealed, in_clear: InClear, *, only_unsealed: bool = False
) -> int:
    """Seal what `in_clear` finds in the column; how many values that were. Raises `Unavailable`."""
    table, column = what.table, what.table.c[what.column]
    keys = tuple(table.primary_key.columns)
    query = select(*keys, column.label("value")).where(column.is_not(None)).order_by(*keys).limit(_BATCH)
    if only_unsealed:
        query = query.where(func.substr(column, 1, 1) != HEAD)
    sealed, after = 0, None
    while True:
        rows = await _rows(database, query if after is None else query.where(tuple_(*keys) > tuple_(*after)))
        for row in rows:
            await keyring.ready(row.tenant)
            sealed += await _seal(database, keyring, what, row, in_clear)
        if len(rows) < _BATCH:
            return sealed
        after = tuple(rows[-1])[: len(keys)]


async def _seal(database: Database, keyring: Keyring, what: Sealed, row: Any, in_clear: InClear) -> int:
    place = what.place(row)
    plain = in_clear(row.tenant, place, row.value)
    if plain is None:
        return 0
    here = [key == value for key, value in zip(what.table.primary_key.columns, row, strict=False)]
    unchanged = what.table.c[what.column] == row.value
    change = update(what.table).where(and_(*here), unchanged)
    with available():
        async with database.writing() as connection:
            done = await connection.execute(change.values({what.column: keyring.seal(row.tenant, place, plain)}))
    return done.rowcount


async def _name(database: Database, keyring: Keyring, table: Table) -> None:
    named = select(table.c.tenant, table.c.subject).where(table.c.subject.is_not(None)).distinct()
    for tenant, subject in await _rows(database, named):
        if _HASH.match(subject) is None:
            await keyring.ready(tenant)
            theirs = (table.c.tenant == tenant, table.c.subject == subject)
            with available():
                async with database.writing() as connection:
                    change = update(table).where(*theirs).values(subject=keyring.name(tenant, subject))
                    await connection.execute(change)


async def _rows(database: Database, query: Any) -> Sequence[Any]:
    with available():
        async with database.reading() as connection:
            return (await connection.execute(query)).all()


def _unsealed(_tenant: str, _place: str, value: bytes) -> bytes | None:
    return None if value[:1] == HEAD else value
