"""The SQLite connection that visits its thread once for a statement."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from app.db.one_hop import OneHopConnection

Opened = Callable[[], OneHopConnection]


class Counted(OneHopConnection):
    """Counts its visits."""

    visits = 0

    async def _execute(self, fn: Callable[..., object], *args: object, **kwargs: object) -> object:
        self.visits += 1
        return await super()._execute(fn, *args, **kwargs)


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Counted]:
    async with connected(tmp_path) as made:
        await made.cursor().execute("CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT)")
        made.visits = 0
        yield made


def connected(directory: Path) -> Counted:
    return Counted(lambda: sqlite3.connect(directory / "x.db", isolation_level=None, timeout=5))


async def test_a_statement_with_rows_is_one_visit(connection: Counted) -> None:
    cursor = connection.cursor()
    await cursor.executemany("INSERT INTO t (s) VALUES (?)", [("a",), ("b",), ("c",)])
    assert cursor.rowcount == 3
    await cursor.execute("SELECT n, s FROM t ORDER BY n", ())
    assert [column[0] for column in cursor.description or ()] == ["n", "s"]
    assert await cursor.fetchone() == (1, "a")
    assert await cursor.fetchmany(1) == [(2, "b")]
    assert await cursor.fetchall() == [(3, "c")]
    assert await cursor.fetchone() is None
    await cursor.execute("INSERT INTO t (s) VALUES (?) RETURNING n", ("d",))
    assert [row async for row in cursor] == [(4,)]
    assert cursor.lastrowid == 4
    assert connection.visits == 3


async def test_a_rollback_of_nothing_is_no_visit(connection: Counted) -> None:
    await connection.rollback()
    with pytest.raises(sqlite3.IntegrityError):
        await connection.cursor().executemany("INSERT INTO t (n) VALUES (?)", [(1,), (1,)])
    await connection.rollback()
    assert connection.visits == 1


async def test_a_rollback_undoes_what_is_open(connection: Counted) -> None:
    await connection.cursor().execute("BEGIN IMMEDIATE")
    await connection.cursor().execute("INSERT INTO t (s) VALUES ('a')")
    await connection.rollback()
    cursor = await connection.cursor().execute("SELECT count(*) FROM t")
    assert await cursor.fetchall() == [(0,)]


async def test_a_transaction_that_nobody_waited_for_is_undone_too(connection: Counted, tmp_path: Path) -> None:
    """A BEGIN that was given up may still come to pass; a rollback after it must not find nothing to do."""
    async with connected(tmp_path) as other:
        await other.cursor().execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(connection.cursor().execute("BEGIN IMMEDIATE"))
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await other.commit()
        await connection.rollback()
        assert not connection.in_transaction
        await other.cursor().execute("BEGIN IMMEDIATE")
