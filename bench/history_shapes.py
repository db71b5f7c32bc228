"""Three shapes of history over one database and payload: a tree of items, a walk of links, copied transcripts."""

from __future__ import annotations

import json
import time

import msgspec
import sqlalchemy as sa

from app.db.engine import Database
from app.history.opened import OpenedContexts
from app.history.seal import Sealer
from app.history.store import SqlHistoryStore
from app.responses.ports import StoredItem, StoredResponse
from app.turn.ids import RandomIds

TEXT = "All work and no play makes the sheep a dull companion. " * 17
TABLES = sa.MetaData()
_walk = sa.Table(
    "bench_walk",
    TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("parent", sa.Text),
    sa.Column("body", sa.LargeBinary),
)
_copy = sa.Table("bench_copy", TABLES, sa.Column("id", sa.Text, primary_key=True), sa.Column("body", sa.LargeBinary))


def item(name: str) -> StoredItem:
    """A message of about a kilobyte."""
    said = {"id": name, "type": "message", "role": "assistant" if name.endswith("o") else "user", "status": "completed"}
    part = {"type": "output_text" if name.endswith("o") else "input_text", "text": TEXT}
    return StoredItem(name, msgspec.Raw(json.dumps({**said, "content": [part]}).encode()))


class Tree:
    """Ours."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self.store = SqlHistoryStore(database, RandomIds(), sealer)

    async def turn(self, name: str, previous: str | None) -> int:
        """Load and store; how many items were loaded."""
        context = await self.store.context("bench", previous) if previous else ()
        await self.add(name, previous)
        return len(context)

    async def add(self, name: str, previous: str | None) -> None:
        """Store."""
        made = StoredResponse(
            id=name,
            previous_id=previous,
            created_at=0,
            status="completed",
            model="m",
            snapshot=msgspec.Raw(b"{}"),
            input=(item(f"{name}i"),),
            output=(item(f"{name}o"),),
        )
        await self.store.save("bench", made)


class GoesOn(Tree):
    """Ours, in a process that had the turn before."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        super().__init__(database, sealer)
        self.store = SqlHistoryStore(database, RandomIds(), sealer, OpenedContexts(64 * 2**20, 60.0, time.monotonic))


class Walk:
    """A row per response, a link to the one before."""

    def __init__(self, database: Database, _sealer: Sealer) -> None:
        self.database = database

    async def turn(self, name: str, previous: str | None) -> int:
        """Load and store; how many items were loaded."""
        found, at = 0, previous
        async with self.database.reading() as connection:
            while at is not None:
                row = (await connection.execute(sa.select(_walk).where(_walk.c.id == at))).one()
                found, at = found + len(msgspec.json.decode(row.body)), row.parent
        await self.add(name, previous)
        return found

    async def add(self, name: str, previous: str | None) -> None:
        """Store."""
        body = msgspec.json.encode([item(f"{name}i").raw, item(f"{name}o").raw])
        async with self.database.writing() as connection:
            await connection.execute(sa.insert(_walk), {"id": name, "parent": previous, "body": body})


class Copy:
    """The whole transcript in every row."""

    def __init__(self, database: Database, _sealer: Sealer) -> None:
        self.database = database
        self.whole: list[msgspec.Raw] = []

    async def turn(self, name: str, previous: str | None) -> int:
        """Load and store; how many items were loaded."""
        found: list[msgspec.Raw] = []
        if previous is not None:
            async with self.database.reading() as connection:
                row = (await connection.execute(sa.select(_copy).where(_copy.c.id == previous))).one()
                found = msgspec.json.decode(row.body, type=list[msgspec.Raw])
        self.whole = found
        await self.add(name, previous)
        return len(found)

    async def add(self, name: str, previous: str | None) -> None:
        """Store; only what a bench of depth D needs is kept of the rows before."""
        del previous
        self.whole = [*self.whole, item(f"{name}i").raw, item(f"{name}o").raw]
        async with self.database.writing() as connection:
            await connection.execute(sa.insert(_copy), {"id": name, "body": msgspec.json.encode(self.whole)})

    async def skip(self, names: list[str]) -> None:
        """Grow the transcript without storing every step of it, which would take gigabytes."""
        self.whole += [each.raw for name in names[:-1] for each in (item(f"{name}i"), item(f"{name}o"))]
        await self.add(names[-1], None)
