"""Forgets what has been kept long enough: responses, conversations, calls that nobody can approve any more, and logs
that belong to no response.

All of it goes in small batches, so that nobody who stores something has to wait long for it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from sqlalchemy import BindParameter, Select, Table, bindparam, delete, exists, select, tuple_

from app.db.engine import Database
from app.history.conversations import SqlConversationStore
from app.history.desk_tables import conversations
from app.history.errors import available
from app.history.store import SqlHistoryStore
from app.history.tables import entries, responses, runs
from app.turn.errors import GatewayError, InvalidRequest, NotFound

_log = logging.getLogger(__name__)

BATCH: Final = 100

_LIMIT: Final[BindParameter[int]] = bindparam("limit")
_NOW: Final[BindParameter[int]] = bindparam("now")


def _expired(table: Table) -> Select[Any, Any]:
    columns = (table.c.tenant, table.c.id)
    return select(*columns).where(table.c.expires_at <= _NOW).order_by(table.c.expires_at, table.c.id).limit(_LIMIT)


_RESPONSES: Final = _expired(responses)
_CONVERSATIONS: Final = _expired(conversations).offset(bindparam("skip"))


def _without_response(table: Table) -> tuple[Any, Any]:
    """Of a table with a `response_id`: neither that response nor a run of it is there."""
    return (
        ~exists().where(responses.c.tenant == table.c.tenant, responses.c.id == table.c.response_id),
        ~exists().where(runs.c.tenant == table.c.tenant, runs.c.id == table.c.response_id),
    )


# A response that could not be stored leaves the log of its failure behind.
_ORPHANS: Final = (
    select(entries.c.tenant, entries.c.response_id).distinct().where(*_without_response(entries)).limit(_LIMIT)
)
_DROP_LOGS: Final = delete(entries).where(
    tuple_(entries.c.tenant, entries.c.response_id).in_(bindparam("keys", expanding=True))
)


class Sweeper:
    """Forgets. `now` is in seconds since the epoch.

    `beside` are other rooms' tables by tenant and id, whose rows expire with the response they name by its
    `response_id`: they go when neither that response is there nor their own time is left.
    """

    def __init__(
        self,
        database: Database,
        store: SqlHistoryStore,
        talks: SqlConversationStore,
        now: Callable[[], float],
        beside: Sequence[Table] = (),
    ) -> None:
        self._database = database
        self._store = store
        self._talks = talks
        self._now = now
        self._beside = [(_stale(table), _drop(table)) for table in beside]

    async def sweep(self) -> int:
        """Forget what has expired; how many responses that were. Raises `Unavailable`."""
        await self._sweep_conversations()
        swept = 0
        while True:
            rows = await self._rows(_RESPONSES, now=int(self._now()))
            for tenant, response_id in rows:
                await _forget(self._store.delete, tenant, response_id)
            swept += len(rows)
            if len(rows) < BATCH:
                break
        for stale, drop in self._beside:
            await self._drop(stale, drop, now=int(self._now()))
        return swept

    async def sweep_logs(self) -> int:
        """Forget logs that belong to no response; how many there were. Raises `Unavailable`."""
        return await self._drop(_ORPHANS, _DROP_LOGS)

    async def _sweep_conversations(self) -> None:
        # One in which a response is made now is left for the next time.
        locked = 0
        while rows := await self._rows(_CONVERSATIONS, now=int(self._now()), skip=locked):
            for tenant, conversation_id in rows:
                locked += not await _forget(self._talks.delete, tenant, conversation_id)

    async def _drop(self, which: Select[Any, Any], drop: Any, **wanted: int) -> int:
        dropped = 0
        while keys := [tuple(row) for row in await self._rows(which, **wanted)]:
            with available():
                async with self._database.writing() as connection:
                    await connection.execute(drop, {"keys": keys})
            dropped += len(keys)
        return dropped

    async def _rows(self, statement: Select[Any, Any], **wanted: int) -> Sequence[Any]:
        with available():
            async with self._database.reading() as connection:
                return (await connection.execute(statement, {**wanted, "limit": BATCH})).all()


def _stale(table: Table) -> Select[Any, Any]:
    stale = (table.c.expires_at <= _NOW, *_without_response(table))
    return select(table.c.tenant, table.c.id).where(*stale).limit(_LIMIT)


def _drop(table: Table) -> Any:
    return delete(table).where(tuple_(table.c.tenant, table.c.id).in_(bindparam("keys", expanding=True)))


async def _forget(delete_one: Callable[[str, str], Awaitable[None]], tenant: str, named: str) -> bool:
    """Whether it is gone: false while somebody else is at work on it."""
    try:
        await delete_one(tenant, named)
    except NotFound:
        _log.debug("somebody else has forgotten %s", named)
    except InvalidRequest:
        return False
    return True


async def sweep_once(sweeper: Sweeper, *, logs: bool) -> None:
    """Sweep; a database that does not answer is left for the next time."""
    try:
        swept = await sweeper.sweep()
        swept += await sweeper.sweep_logs() if logs else 0
    except GatewayError as error:
        _log.warning("what has expired could not be forgotten: %s", error.message)
        return
    if swept:
        _log.info("forgot what has expired", extra={"responses": swept})
