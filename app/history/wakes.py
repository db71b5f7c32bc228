"""Who waits for news hears of them: from this process at once, from others over PostgreSQL's LISTEN/NOTIFY.

A topic is the id of a response (its log has grown, or it is over) or `RUNS` (something to claim or to end). News are a
hint, never the truth: whoever waits looks again by itself from time to time, which is all there is on SQLite between
processes, or while a listening connection is down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, String, bindparam, func, select
from sqlalchemy.exc import SQLAlchemyError

from app.db.engine import Database

_log = logging.getLogger(__name__)

RUNS: Final = "runs"
_CHANNEL: Final = "shepherd"
# A notification holds 8000 bytes at most.
_TOPICS_A_NOTE: Final = 150
_RETRY_SECS: Final = 1.0
_NOTE: Final = select(func.pg_notify(_CHANNEL, bindparam("topics", type_=String)))


def notice(topic: ColumnElement[str]) -> ColumnElement[Any]:
    """A column that tells the other processes of `topic`, when the transaction commits. Only for PostgreSQL."""
    return func.pg_notify(_CHANNEL, topic)


class Wakes:
    """The news of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def on(self, topic: str) -> Generator[asyncio.Event]:
        """Set whenever there may be news of `topic`; whoever waits clears it before looking."""
        event = asyncio.Event()
        self._waiting.setdefault(topic, set()).add(event)
        try:
            yield event
        finally:
            waiting = self._waiting[topic]
            waiting.discard(event)
            if not waiting:
                del self._waiting[topic]

    def wake(self, topics: Iterable[str]) -> None:
        """Tell this process."""
        for topic in topics:
            for event in self._waiting.get(topic, ()):
                event.set()

    def note(self, connection: Connection, topics: Sequence[str]) -> None:
        """Tell the other processes, when the transaction commits; this one is told by `wake`, after that."""
        if self._database.is_sqlite:
            return
        for first in range(0, len(topics), _TOPICS_A_NOTE):
            connection.execute(_NOTE, {"topics": " ".join(topics[first : first + _TOPICS_A_NOTE])})

    async def listen(self) -> None:
        """Hear what others tell, for as long as this runs. On SQLite there is nothing to hear."""
        if self._database.is_sqlite:
            await asyncio.Event().wait()
        while True:
            try:
                await self._listen()
            except (SQLAlchemyError, OSError, TimeoutError) as error:
                _log.warning("not listening for news of other processes: %s", type(error).__name__)
            await asyncio.sleep(_RETRY_SECS)

    async def _listen(self) -> None:
        lost = asyncio.Event()

        def heard(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
            self.wake(payload.split(" "))

        def ended(_connection: Any) -> None:
            lost.set()

        async with self._database.engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            driver.add_termination_listener(ended)
            await driver.add_listener(_CHANNEL, heard)
            # What was told while nobody listened is not repeated.
            self.wake(tuple(self._waiting))
            try:
                await lost.wait()
            finally:
                await connection.invalidate()


async def patience(event: asyncio.Event, seconds: float) -> None:
    """Wait for `event`, but not longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
