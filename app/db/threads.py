"""SQLite in threads of our own: a whole transaction is one visit to the thread that has the connection.

A driver that sends each statement to a thread, and waits for it there, pays for the way more than for the statement.
Here the work of a transaction is a plain function, which the thread calls with its connection.

What comes while a thread is at work waits, and is then done in one go: writers that wait together are committed
together, each undone by itself when it fails. A visit that nobody waits for any more is left out if it has not begun;
one that has begun is waited for, so that nothing is reported as failed that was stored.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from app.db.prepared import execute

_T = TypeVar("_T")
Work: TypeAlias = Callable[[Connection], _T]

# Writers that are committed together hold up the first of them.
_MOST_TOGETHER: Final = 64


class Visit(Generic[_T]):
    """Work for a thread, and what came of it."""

    __slots__ = ("_begun", "_outcome", "_waiting", "loop", "work")

    def __init__(self, work: Work[_T], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self._begun = threading.Lock()
        self._outcome: tuple[Any, Exception | None] | None = None
        self._waiting: asyncio.Future[None] = loop.create_future()

    def begin(self) -> bool:
        """Whether this is the first who asks: the one to do the work, or to give it up."""
        return self._begun.acquire(blocking=False)

    def settle(self, result: Any, error: Exception | None) -> None:
        """It is done. On the loop."""
        self._outcome = (result, error)
        if not self._waiting.done():
            self._waiting.set_result(None)

    def give_up(self) -> None:
        """The time is up. Work that has begun goes on: it has time limits of its own."""
        if self.begin():
            self.settle(None, TimeoutError("the database was busy for too long"))

    async def outcome(self, seconds: float) -> _T:
        """What the work returned, or raised; `TimeoutError` when it has not begun after `seconds`."""
        timer = self.loop.call_later(seconds, self.give_up)
        cancelled: asyncio.CancelledError | None = None
        while self._outcome is None:
            try:
                await self._waiting
            except asyncio.CancelledError as error:
                if self.begin():
                    timer.cancel()
                    raise
                cancelled = error
                self._waiting = self.loop.create_future()
        timer.cancel()
        if cancelled is not None:
            raise cancelled
        result, error = self._outcome
        if error is not None:
            raise error
        return result


class Threads:
    """At most `most` threads, started when there is more to do than there are, each with a connection of `engine`.

    Those that are `writing` do what waits in one transaction; others do one thing after the other, in none.
    """

    def __init__(self, engine: Engine, *, most: int, writing: bool) -> None:
        self._engine = engine
        self._most = most
        self._writing = writing
        self._queue: SimpleQueue[Visit[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._in_flight = 0

    async def visit(self, work: Work[_T], seconds: float) -> _T:
        """What `work` makes of a connection. Raises what it raises, what the database does wrong, `TimeoutError`."""
        visit = Visit(work, asyncio.get_running_loop())
        self._in_flight += 1
        self._queue.put(visit)
        if len(self._threads) < min(self._in_flight, self._most):
            name = "database writes" if self._writing else "database reads"
            thread = threading.Thread(target=self._serve, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        try:
            return await visit.outcome(seconds)
        finally:
            self._in_flight -= 1

    async def close(self) -> None:
        """Do what waits, and end."""
        threads, self._threads = self._threads, []
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            await asyncio.to_thread(thread.join)

    # ── in the threads ────────────────────────────────────────────────────────

    def _serve(self) -> None:
        connection: Connection | None = None
        while (group := self._next()) is not None:
            begun = [visit for visit in group if visit.begin()]
            if not begun:
                continue
            try:
                connection = connection or self._engine.connect()
                outcomes = (_committed if self._writing else _looked)(connection, [visit.work for visit in begun])
            except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it is
                outcomes = [(None, error)] * len(begun)
                connection = _undone(connection)
            # Nobody is there to be told when the loop is closed.
            with suppress(RuntimeError):
                begun[0].loop.call_soon_threadsafe(_settle, list(zip(begun, outcomes, strict=True)))
        if connection is not None:
            connection.close()

    def _next(self) -> list[Visit[Any]] | None:
        first = self._queue.get()
        if first is None:
            return None
        group = [first]
        while self._writing and len(group) < _MOST_TOGETHER:
            try:
                more = self._queue.get_nowait()
            except Empty:
                break
            if more is None:
                self._queue.put(None)
                break
            group.append(more)
        return group


Outcome: TypeAlias = tuple[Any, Exception | None]


def _settle(done: Sequence[tuple[Visit[Any], Outcome]]) -> None:
    for visit, (result, error) in done:
        visit.settle(result, error)


def _looked(connection: Connection, works: Sequence[Work[Any]]) -> list[Outcome]:
    (work,) = works
    outcome = _alone(connection, work)
    connection.rollback()
    return [outcome]


def _committed(connection: Connection, works: Sequence[Work[Any]]) -> list[Outcome]:
    """Do all of it in one transaction. Raises when none of it is stored."""
    # One that begins as a reader and becomes a writer fails at once instead of waiting its turn.
    connection.begin()
    execute(connection, "BEGIN IMMEDIATE")
    apart = _apart if len(works) > 1 else _alone
    outcomes = [apart(connection, work) for work in works]
    connection.commit()
    return outcomes


def _alone(connection: Connection, work: Work[Any]) -> Outcome:
    return work(connection), None


def _apart(connection: Connection, work: Work[Any]) -> Outcome:
    """Do one thing of several; when it fails, it alone is undone. Raises when everything is."""
    execute(connection, "SAVEPOINT one")
    try:
        outcome: Outcome = work(connection), None
    except Exception as error:
        # What the database cannot do at all (its disk is full) has undone everything that was open.
        if not _is_open(connection):
            raise
        execute(connection, "ROLLBACK TO one")
        outcome = None, error
    execute(connection, "RELEASE one")
    return outcome


def _is_open(connection: Connection) -> bool:
    driver: Any = connection.connection.driver_connection
    return driver.in_transaction


def _undone(connection: Connection | None) -> Connection | None:
    """The connection with nothing open; None when it is of no more use."""
    if connection is None:
        return None
    try:
        connection.rollback()
    except SQLAlchemyError:
        connection.invalidate()
    if connection.invalidated:
        connection.close()
        return None
    return connection
