"""SQLite's threads: what waits together is stored together, and what was given up is not stored at all."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import IntegrityError, OperationalError

from app.db.engine import Database, with_driver
from app.db.settings import DatabaseSettings
from tests.support.clocks import put_forward

SETTINGS = DatabaseSettings(op_timeout_secs=60, sqlite_busy_timeout_secs=0.1)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(with_driver(f"sqlite:///{tmp_path / 'x.db'}"), SETTINGS)
    await database.transact(lambda connection: connection.exec_driver_sql("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    yield database
    await database.close()


def add(number: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        connection.exec_driver_sql("INSERT INTO t VALUES (?)", (number,))
        return number

    return work


async def numbers(database: Database) -> list[int]:
    return await database.look(
        lambda connection: [row.n for row in connection.exec_driver_sql("SELECT n FROM t ORDER BY n")]
    )


class Held:
    """Keeps the writer busy until it is let go."""

    def __init__(self, database: Database) -> None:
        self._begun, self._go = threading.Event(), threading.Event()
        self._task = asyncio.create_task(database.transact(self._work))

    def _work(self, _connection: Connection) -> None:
        self._begun.set()
        assert self._go.wait(30)

    async def begun(self) -> None:
        assert await asyncio.to_thread(self._begun.wait, 30)

    async def let_go(self) -> None:
        self._go.set()
        await self._task


async def test_what_waits_together_is_committed_together(database: Database) -> None:
    commits: list[object] = []
    event.listen(database.direct, "commit", commits.append)
    held = Held(database)
    await held.begun()
    waiting = [asyncio.create_task(database.transact(add(number))) for number in range(10)]
    await asyncio.sleep(0)
    await held.let_go()
    assert await asyncio.gather(*waiting) == list(range(10))
    assert await numbers(database) == list(range(10))
    assert len(commits) == 2


async def test_what_fails_among_others_is_undone_alone(database: Database) -> None:
    def half(connection: Connection) -> None:
        add(7)(connection)
        raise LookupError("not this")

    held = Held(database)
    await held.begun()
    works: list[Callable[[Connection], object]] = [add(1), half, add(1), add(2)]
    waiting = [asyncio.create_task(database.transact(work)) for work in works]
    await asyncio.sleep(0)
    await held.let_go()
    first, wrong, again, last = await asyncio.gather(*waiting, return_exceptions=True)
    assert (first, last) == (1, 2)
    assert isinstance(wrong, LookupError)
    assert isinstance(again, IntegrityError)
    assert await numbers(database) == [1, 2]


async def test_what_fails_alone_is_undone_and_the_thread_goes_on(database: Database) -> None:
    def half(connection: Connection) -> None:
        add(7)(connection)
        raise LookupError("not this")

    with pytest.raises(LookupError, match="not this"):
        await database.transact(half)
    assert await database.transact(add(1)) == 1
    assert await numbers(database) == [1]


async def test_what_cannot_be_committed_is_reported_to_all(database: Database) -> None:
    """Everything that was done before the disk was full is undone with it."""

    def grow(connection: Connection) -> None:
        connection.exec_driver_sql("CREATE TABLE big (body BLOB)")
        for _ in range(100):
            connection.exec_driver_sql("INSERT INTO big VALUES (zeroblob(100000))")

    held = Held(database)
    await held.begun()
    small = asyncio.create_task(
        database.transact(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=20").scalar())
    )
    await asyncio.sleep(0)
    await held.let_go()
    await small
    held = Held(database)
    await held.begun()
    waiting = [asyncio.create_task(database.transact(work)) for work in (add(1), grow)]
    await asyncio.sleep(0)
    await held.let_go()
    told = await asyncio.gather(*waiting, return_exceptions=True)
    stored = await numbers(database)
    assert isinstance(told[1], OperationalError)
    # Whether it was all or only the one is SQLite's choice; what was told agrees with what is there.
    assert stored == ([] if isinstance(told[0], OperationalError) else [1])


async def test_what_was_opened_when_nothing_could_be_written_is_opened_again(database: Database) -> None:
    # As a connection is that found its file read-only: it stays so, whatever becomes of the file.
    await database.transact(lambda connection: connection.exec_driver_sql("PRAGMA query_only=ON"))
    with pytest.raises(OperationalError):
        await database.transact(add(1))
    await database.transact(add(2))
    async with database.reading() as connection:
        await connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(OperationalError):
        async with database.writing() as connection:
            await connection.run_sync(add(3))
    async with database.writing() as connection:
        await connection.run_sync(add(4))
    assert await numbers(database) == [2, 4]


async def test_a_visit_that_was_cancelled_before_it_began_never_happens(database: Database) -> None:
    held = Held(database)
    await held.begun()
    waiting = asyncio.create_task(database.transact(add(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await held.let_go()
    assert await database.transact(add(2)) == 2
    assert await numbers(database) == [2]


async def test_a_visit_that_was_cancelled_after_it_began_is_waited_for(database: Database) -> None:
    begun, go = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        begun.set()
        assert go.wait(30)
        add(1)(connection)

    waiting = asyncio.create_task(database.transact(work))
    assert await asyncio.to_thread(begun.wait, 30)
    waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await numbers(database) == [1]


async def test_a_visit_that_does_not_begin_in_time_is_given_up(database: Database) -> None:
    held = Held(database)
    await held.begun()
    waiting = asyncio.create_task(database.transact(add(1)))
    await asyncio.sleep(0)
    put_forward(60)
    with pytest.raises(TimeoutError):
        await waiting
    await held.let_go()
    assert await numbers(database) == []


async def test_those_who_write_statement_by_statement_are_waited_for(database: Database) -> None:
    async with database.writing() as connection:
        await connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        waiting = asyncio.create_task(database.transact(add(2)))
        await asyncio.sleep(0.2)
        assert not waiting.done()
    assert await waiting == 2
    assert await numbers(database) == [1, 2]


async def test_another_process_that_writes_for_too_long_is_an_error(database: Database, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"):
        await database.transact(add(1))
    other.execute("COMMIT")
    other.close()
    assert await database.transact(add(1)) == 1


async def test_readers_do_not_wait_for_the_writer(database: Database) -> None:
    held = Held(database)
    await held.begun()
    assert await numbers(database) == []
    await held.let_go()


async def test_what_waits_is_done_before_the_threads_end(database: Database) -> None:
    held = Held(database)
    await held.begun()
    waiting = asyncio.create_task(database.transact(add(1)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(database.close())
    await held.let_go()
    await closing
    assert await waiting == 1
