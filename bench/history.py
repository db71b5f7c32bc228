"""What memory costs: a turn at any depth, an event in the log, a resumed stream; and what other shapes would cost.

    python -m bench.history                  SQLite
    python -m bench.history --postgres URL   also an empty PostgreSQL database

A turn is what storage does for one: load the context, store one message in and one out (about 1 kB each). `GoesOn` is
a turn that follows another one in the same process, which holds the context opened; `Tree` is one at a process that
does not, and so is the first after a restart. Beside the tree of items run two other shapes on the same database,
driver and payload: `Walk` follows a link per ancestor, one query each; `Copy` stores the whole transcript in every
response. `needed` is not storage: the bytes of the context the model has to be told, copied once, which is the least
anybody can do, and read and written as a request to a worker, which is what the gateway does.

All of it takes some ten minutes; `--only` and `--shape` take a part of it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

import sqlalchemy as sa

from app.db.engine import Database, with_driver
from app.db.migrate import upgrade
from app.db.settings import DatabaseSettings
from app.history.keyring import Keyring, Master
from app.history.seal import Clear, Sealer
from bench.history_log import log
from bench.history_needed import needed
from bench.history_shapes import TABLES, Copy, GoesOn, Tree, Walk

DEPTHS = (1, 10, 100, 1000, 5000)
TURNS = 15
Shape: TypeAlias = Tree | Walk | Copy
SHAPES: Final[tuple[tuple[type[Shape], str], ...]] = (
    (GoesOn, "items"),
    (Tree, "items"),
    (Walk, "bench_walk"),
    (Copy, "bench_copy"),
)
LOG: Final = "log"


async def size(database: Database, table: str) -> int:
    """Bytes of content in the table."""
    column = "body"
    async with database.reading() as connection:
        return await connection.scalar(sa.text(f"SELECT coalesce(sum(length({column})), 0) FROM {table}")) or 0


async def depths(name: str, database: Database, sealer: Sealer, shapes: Sequence[str]) -> None:
    """Cost and bytes of a turn at each depth, in each shape."""
    for shape, table in SHAPES:
        if shape.__name__ in shapes:
            await _shape(name, database, shape(database, sealer), table)


async def _shape(name: str, database: Database, made: Shape, table: str) -> None:
    shape = type(made).__name__
    tip: str | None = None
    at = 0
    for depth in DEPTHS:
        names = [f"{shape}{k}" for k in range(at, depth - 1)]
        if isinstance(made, Copy) and len(names) > 50:
            await made.skip(names)
        else:
            for before, each in zip([tip, *names], names, strict=False):
                await made.add(each, before)
        tip = names[-1] if names else tip
        if isinstance(made, GoesOn) and tip is not None:
            # What the gateway had to read for the turn before.
            needed(name, await made.store.context("bench", tip), depth)
        wall, bytes_before = list[float](), await size(database, table)
        cpu = time.process_time()
        for k in range(TURNS):
            began = time.perf_counter()
            name_of_turn = f"{shape}-{depth}-{k}"
            await made.turn(name_of_turn, tip)
            tip = name_of_turn if isinstance(made, GoesOn) else tip
            wall.append((time.perf_counter() - began) * 1000)
        cpu = (time.process_time() - cpu) * 1000 / TURNS
        grown = (await size(database, table) - bytes_before) / TURNS
        at = max(at, depth - 1)
        print(
            f"{name:9} {shape:6} depth {depth:5}  turn p50 {statistics.median(wall):8.2f} ms"
            f"  cpu {cpu:8.2f} ms  stored {grown:10.0f} B"
        )


async def sealing() -> None:
    """What a seal costs, of a delta and of a kilobyte."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(with_driver(f"sqlite:///{folder}/keys.db"), DatabaseSettings())
        await upgrade(database)
        keyring = Keyring(database, [Master(os.urandom(32))], time.monotonic)
        await keyring.ready("bench")
        for bytes_each in (200, 1000, 20_000):
            plain = os.urandom(bytes_each)
            sealed = b""
            began = time.perf_counter()
            for _ in range(2000):
                sealed = keyring.seal("bench", "items/chain/1", plain)
            middle = time.perf_counter()
            for _ in range(2000):
                keyring.open("bench", "items/chain/1", sealed)
            ended = time.perf_counter()
            print(f"seal {bytes_each:6} B  {(middle - began) * 500:.2f} us, open {(ended - middle) * 500:.2f} us")
        await database.close()


async def on(name: str, url: str, chosen: Sequence[str]) -> None:
    """What was chosen, on one database."""
    # The walk of thousands of links takes longer than the gateway would wait.
    database = Database(with_driver(url), DatabaseSettings(op_timeout_secs=600.0))
    await upgrade(database)
    async with database.writing() as connection:
        await connection.run_sync(TABLES.create_all)
    keyring = Keyring(database, [Master(os.urandom(32))], time.monotonic)
    await keyring.ready("bench")
    # As the gateway does when it listens.
    gc.freeze()
    await depths(name, database, keyring, chosen)
    if LOG in chosen:
        await log(name, database, keyring)
        await _saving(name, database, keyring)
    await database.close()


async def _saving(name: str, database: Database, keyring: Keyring) -> None:
    clear = Tree(database, Clear())
    began = time.perf_counter()
    for k in range(50):
        await clear.add(f"clear{k}", None)
    middle = time.perf_counter()
    sealed = Tree(database, keyring)
    for k in range(50):
        await sealed.add(f"sealed{k}", None)
    print(f"{name:9} save in clear {(middle - began) * 20:.2f} ms, sealed {(time.perf_counter() - middle) * 20:.2f} ms")


async def main() -> None:
    """Run it."""
    everything = [*(shape.__name__ for shape, _ in SHAPES), LOG]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", metavar="URL", help="an empty database")
    parser.add_argument("--only", choices=["sqlite", "postgres"], help="one of the databases")
    parser.add_argument("--shape", choices=everything, action="append", help="a part of it; may be repeated")
    asked = parser.parse_args()
    chosen = asked.shape or everything
    if LOG in chosen:
        await sealing()
    if asked.only != "postgres":
        with tempfile.TemporaryDirectory() as folder:
            await on("sqlite", f"sqlite:///{Path(folder) / 'bench.db'}", chosen)
    if asked.postgres and asked.only != "sqlite":
        await on("postgres", asked.postgres, chosen)


if __name__ == "__main__":
    asyncio.run(main())
