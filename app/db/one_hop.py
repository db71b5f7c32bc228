"""aiosqlite with one visit to its thread for each statement, where it makes four.

A statement of SQLAlchemy's opens a cursor, executes, fetches and closes, and aiosqlite sends each of these to the
connection's thread and waits: the visits cost more than the statement. Here a statement is executed, fetched and closed
in one visit, and a rollback of nothing is none. The rows of a statement are in memory either way: SQLAlchemy fetches
all of them at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Self

import aiosqlite


class OneHopConnection(aiosqlite.Connection):
    """A connection whose cursors are `OneHopCursor`s."""

    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._asked = 0
        self._answered = 0

    async def __aenter__(self) -> Self:
        await self
        return self

    def cursor(self) -> Any:
        """A new cursor. Nothing is asked for it."""
        return OneHopCursor(self)

    async def rollback(self) -> None:
        """Undo what is not committed. When everything that was asked is answered, and nothing is open, so is this."""
        if self._asked != self._answered or self.in_transaction:
            await super().rollback()

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._asked += 1
        try:
            found: Any = await super()._execute(fn, *args, **kwargs)  # pyright: ignore[reportUnknownMemberType]
        except Exception:
            self._answered += 1
            raise
        # One who was cancelled while waiting does not come here: what was asked may be going on.
        self._answered += 1
        return found

    async def visit(self, fn: Callable[[sqlite3.Connection], Any]) -> Any:
        """What `fn` makes of the connection, in its thread."""
        return await self._execute(fn, self._conn)


class OneHopCursor:
    """What SQLAlchemy wants of a cursor, with the rows of the last statement at hand."""

    def __init__(self, connection: OneHopConnection) -> None:
        self._connection = connection
        self._rows: list[Any] = []
        self.description: Sequence[Any] | None = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> OneHopCursor:
        return self

    async def execute(self, operation: str, parameters: Iterable[Any] = ()) -> OneHopCursor:
        """Execute, and fetch what there is."""
        return await self._visit(lambda cursor: cursor.execute(operation, tuple(parameters)))

    async def executemany(self, operation: str, parameters: Iterable[Any]) -> OneHopCursor:
        """Execute for each of the parameters."""
        return await self._visit(lambda cursor: cursor.executemany(operation, parameters))

    async def fetchall(self) -> list[Any]:
        """All rows that are left."""
        rows, self._rows = self._rows, []
        return rows

    async def fetchone(self) -> Any:
        """The next row."""
        return self._rows.pop(0) if self._rows else None

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """The next rows."""
        many = self.arraysize if size is None else size
        rows, self._rows = self._rows[:many], self._rows[many:]
        return rows

    async def __aiter__(self) -> AsyncIterator[Any]:
        for row in await self.fetchall():
            yield row

    async def close(self) -> None:
        """Drop the rows. The driver's cursor is closed already."""
        self._rows = []

    async def _visit(self, work: Callable[[sqlite3.Cursor], object]) -> OneHopCursor:
        def done(connection: sqlite3.Connection) -> tuple[list[Any], Any, int, int | None]:
            cursor = connection.cursor()
            try:
                work(cursor)
                rows = [] if cursor.description is None else cursor.fetchall()
                return rows, cursor.description, cursor.rowcount, cursor.lastrowid
            finally:
                cursor.close()

        self._rows, self.description, self.rowcount, self.lastrowid = await self._connection.visit(done)
        return self
