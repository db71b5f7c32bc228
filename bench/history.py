"""What memory costs: a turn at any depth, an event in the log, a resumed stream; and what other shapes would cost.

    python bench/history.py                  SQLite
    python bench/history.py --postgres URL   also an empty PostgreSQL database

A turn is what storage does for one: load the context, store one message in and one out (about 1 kB each). Beside the
tree of items run two other shapes on the same database, driver and payload: `walk` follows a link per ancestor, one
query each; `copy` stores the whole transcript in every response.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import sqlalchemy as sa

from app.db.engine import Database, with_driver
from app.db.migrate import upgrade
from app.db.settings import DatabaseSettings
from app.dialects.openai_responses.events import Event
from app.history.events import SqlEventStore
from app.history.keyring import Keyring, Master
from app.history.runs import SqlRunStore
from app.history.seal import Clear, Sealer
from app.history.settings import HistorySettings
from app.history.store import SqlHistoryStore
from app.history.wakes import Wakes
from app.responses.ports import Entry, NewRun, StoredItem, StoredResponse
from app.turn.errors import GatewayError
from app.turn.events import TextDelta
from app.turn.ids import RandomIds

DEPTHS = (1, 10, 100, 1000, 5000)
TURNS = 15
TEXT = "All work and no play makes the sheep a dull companion. " * 17
_meta = sa.MetaData()
_walk = sa.Table(
    "bench_walk",
    _meta,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("parent", sa.Text),
    sa.Column("body", sa.LargeBinary),
)
_copy = sa.Table("bench_copy", _meta, sa.Column("id", sa.Text, primary_key=True), sa.Column("body", sa.LargeBinary))


def item(name: str) -> StoredItem:
    """A message of about a kilobyte."""
    return StoredItem(name, msgspec.Raw(json.dumps({"id": name, "type": "message", "content": TEXT}).encode()))


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


async def size(database: Database, table: str) -> int:
    """Bytes of content in the table."""
    column = "body"
    async with database.reading() as connection:
        return await connection.scalar(sa.text(f"SELECT coalesce(sum(length({column})), 0) FROM {table}")) or 0


async def depths(name: str, database: Database, sealer: Sealer) -> None:
    """Cost and bytes of a turn at each depth, in each shape."""
    for shape, table in ((Tree, "items"), (Walk, "bench_walk"), (Copy, "bench_copy")):
        made = shape(database, sealer)
        tip: str | None = None
        at = 0
        for depth in DEPTHS:
            names = [f"{shape.__name__}{k}" for k in range(at, depth - 1)]
            if isinstance(made, Copy) and len(names) > 50:
                await made.skip(names)
            else:
                for before, each in zip([tip, *names], names, strict=False):
                    await made.add(each, before)
            tip = names[-1] if names else tip
            wall, bytes_before = [], await size(database, table)
            cpu = time.process_time()
            for k in range(TURNS):
                began = time.perf_counter()
                await made.turn(f"{shape.__name__}-{depth}-{k}", tip)
                wall.append((time.perf_counter() - began) * 1000)
            cpu = (time.process_time() - cpu) * 1000 / TURNS
            grown = (await size(database, table) - bytes_before) / TURNS
            at = max(at, depth - 1)
            print(
                f"{name:9} {shape.__name__:5} depth {depth:5}  turn p50 {statistics.median(wall):8.2f} ms"
                f"  cpu {cpu:8.2f} ms  stored {grown:10.0f} B"
            )


class Deaf:
    """A witness that only counts."""

    def __init__(self) -> None:
        self.count = 0

    def durable(self, events: list[Event]) -> None:
        self.count += len(events)

    def broken(self, error: GatewayError) -> None:
        raise error


async def log(name: str, database: Database, sealer: Sealer) -> None:
    """Events a second into the log, commits they took, and the first byte of a resumed stream."""
    settings, wakes = HistorySettings(), Wakes(database)
    store = SqlHistoryStore(database, RandomIds(), sealer)
    events = SqlEventStore(database, sealer, wakes, 1.0)
    runs = SqlRunStore(database, store, events, sealer, wakes, settings, os.urandom(8).hex())
    data = json.dumps(
        {
            "type": "response.output_text.delta",
            "sequence_number": 0,
            "item_id": "msg_" + "0" * 32,
            "output_index": 0,
            "content_index": 0,
            "delta": " sheep",
            "logprobs": [],
        }
    ).encode()
    for count, total in ((1, 2000), (64, 400)):
        tails = []
        for k in range(count):
            new = NewRun(
                tenant="bench", response_id=f"resp_{name}{count}_{k}", background=True, created_at=0, request=b"{}"
            )
            lease = await runs.begin(new, Entry((), ()), waiting=False)
            tails.append(runs.tail(lease, (Entry((), ()),), Deaf()))
        commits, cpu, began = runs.journal.commits, time.process_time(), time.perf_counter()
        for number in range(total):
            for tail in tails:
                tail.put(
                    TextDelta(" sheep"),
                    [Event(number, "response.output_text.delta", data.replace(b'r": 0', b'r": %d' % number))],
                )
                if tail.full:
                    await tail.flush()
            await asyncio.sleep(0)
        await asyncio.gather(*(tail.flush() for tail in tails))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        print(
            f"{name:9} log: {count:3} runs  {count * total / wall:9.0f} events/s"
            f"  {cpu / count / total * 1e6:6.1f} us cpu each  {runs.journal.commits - commits} commits"
        )
        began = time.perf_counter()
        stream = events.follow("bench", f"resp_{name}{count}_0", total - 10)
        await anext(stream)
        print(f"{name:9} resume: first events after {(time.perf_counter() - began) * 1000:.2f} ms")
        await stream.aclose()
    tail, began = tails[0], time.perf_counter()
    commits = runs.journal.commits
    for number in range(100):
        tail.put(TextDelta("x"), [Event(total + number, "response.output_text.delta", data)])
        await asyncio.sleep(0.01)
    await tail.flush()
    print(f"{name:9} paced: 100 tokens in {time.perf_counter() - began:.2f} s {runs.journal.commits - commits} commits")


async def sealing() -> None:
    """What a seal costs, of a delta and of a kilobyte."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(with_driver(f"sqlite:///{folder}/keys.db"), DatabaseSettings())
        await upgrade(database)
        keyring = Keyring(database, [Master(os.urandom(32))], time.monotonic)
        await keyring.ready("bench")
        for bytes_each in (200, 1000, 20_000):
            plain = os.urandom(bytes_each)
            began = time.perf_counter()
            for _ in range(2000):
                sealed = keyring.seal("bench", "items/chain/1", plain)
            middle = time.perf_counter()
            for _ in range(2000):
                keyring.open("bench", "items/chain/1", sealed)
            ended = time.perf_counter()
            print(f"seal {bytes_each:6} B  {(middle - began) * 500:.2f} us, open {(ended - middle) * 500:.2f} us")
        await database.close()


async def on(name: str, url: str) -> None:
    """Everything on one database."""
    database = Database(with_driver(url), DatabaseSettings())
    await upgrade(database)
    async with database.writing() as connection:
        await connection.run_sync(_meta.create_all)
    keyring = Keyring(database, [Master(os.urandom(32))], time.monotonic)
    await keyring.ready("bench")
    sections: tuple[Callable[[str, Database, Sealer], Awaitable[None]], ...] = (depths, log)
    for section in sections:
        await section(name, database, keyring)
    clear = Tree(database, Clear())
    began = time.perf_counter()
    for k in range(50):
        await clear.add(f"clear{k}", None)
    middle = time.perf_counter()
    sealed = Tree(database, keyring)
    for k in range(50):
        await sealed.add(f"sealed{k}", None)
    print(f"{name:9} save in clear {(middle - began) * 20:.2f} ms, sealed {(time.perf_counter() - middle) * 20:.2f} ms")
    await database.close()


async def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", metavar="URL", help="an empty database")
    parsed = parser.parse_args()
    await sealing()
    with tempfile.TemporaryDirectory() as folder:
        await on("sqlite", f"sqlite:///{Path(folder) / 'bench.db'}")
    if parsed.postgres:
        await on("postgres", parsed.postgres)


if __name__ == "__main__":
    asyncio.run(main())
