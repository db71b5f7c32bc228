"""Forgetting what a tenant or one of its users wants gone, and handing it out before.

Everything here works in small batches, so that nobody who stores something has to wait long for it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from sqlalchemy import BindParameter, Table, and_, bindparam, delete, or_, select, tuple_, update

from app.db.engine import Database
from app.history import branches
from app.history.blanking import blank
from app.history.desk_tables import conversations, prompt_versions, prompts, request_keys
from app.history.errors import available
from app.history.keyring import Keyring
from app.history.seal import Sealer
from app.history.store import SqlHistoryStore
from app.history.tables import chains, entries, items, responses, runs
from app.responses.ports import StoredResponse
from app.turn.errors import NotFound

_log = logging.getLogger(__name__)

BATCH: Final = 100
# What clients keep beside responses, those that point at others first.
KEPT: Final = (conversations, prompt_versions, prompts, request_keys)

_LIMIT: Final[BindParameter[int]] = bindparam("limit")
# Ids in order, from `after` on, of a tenant or of one of its users.
_IDS: Final = (
    select(responses.c.id)
    .where(
        responses.c.tenant == bindparam("of"),
        responses.c.id > bindparam("after"),
        or_(bindparam("everyone"), responses.c.subject == bindparam("subject")),
    )
    .order_by(responses.c.id)
    .limit(_LIMIT)
)
# (chain_id, position, item_id, body): items that are one user's, and that something still needs.
_THEIRS: Final = (
    select(items.c.chain_id, items.c.position, items.c.item_id, items.c.body)
    .where(items.c.tenant == bindparam("of"), items.c.subject == bindparam("subject"))
    .limit(_LIMIT)
    .with_for_update()
)
_BLANK: Final = (
    update(items)
    .where(
        items.c.tenant == bindparam("of"),
        items.c.chain_id == bindparam("on"),
        items.c.position == bindparam("at"),
    )
    .values(body=bindparam("blank"), subject=None)
)
_UNTIE: Final = update(chains).where(chains.c.tenant == bindparam("of")).values(parent_id=None)


class Retention:
    """Forgets and hands out.

    `beside` are other rooms' tables by tenant. Their rows go with the tenant, and where they have a `response_id`, with
    the response of an erased user.
    """

    def __init__(
        self,
        database: Database,
        store: SqlHistoryStore,
        sealer: Sealer,
        beside: Sequence[Table] = (),
    ) -> None:
        self._database = database
        self._store = store
        self._sealer = sealer
        self._beside = beside

    async def responses(self, tenant: str, end_user: str | None = None) -> AsyncIterator[StoredResponse]:
        """All responses of the tenant, or of one of its users, by id. Raises `Unavailable`."""
        async for response_id in self._ids(tenant, end_user):
            try:
                yield await self._store.get(tenant, response_id)
            except NotFound:
                continue

    async def erase_user(self, tenant: str, end_user: str) -> int:
        """Forget all responses of one of the tenant's users, with what they left elsewhere: logs, calls that wait for
        a person's word, keys of requests. How many responses there were. Raises `Unavailable`.

        What the user and the model said stays nowhere: where conversations or other responses are built on it, it is
        blanked in place.
        """
        erased = 0
        async for response_id in self._ids(tenant, end_user):
            await self._drop_beside(tenant, response_id)
            await self._forget(tenant, response_id)
            erased += 1
        await self._blank(tenant, self._sealer.name(tenant, end_user))
        self._store.forget_opened(tenant)
        await self._scrub()
        return erased

    async def _drop_beside(self, tenant: str, response_id: str) -> None:
        with available():
            async with self._database.writing() as connection:
                for table in (request_keys, *self._beside):
                    if "response_id" in table.c:
                        mine = (table.c.tenant == tenant, table.c.response_id == response_id)
                        await connection.execute(delete(table).where(*mine))

    async def _blank(self, tenant: str, subject: str) -> None:
        while True:
            with available():
                async with self._database.writing() as connection:
                    wanted = {"of": tenant, "subject": subject, "limit": BATCH}
                    rows = (await connection.execute(_THEIRS, wanted)).all()
                    if not rows:
                        return
                    await connection.execute(_BLANK, [self._blanked(tenant, row) for row in rows])

    def _blanked(self, tenant: str, row: Any) -> dict[str, Any]:
        place = branches.place_of(row.chain_id, row.position)
        blanked = blank(branches.opened(self._sealer, tenant, row))
        sealed = self._sealer.seal(tenant, place, bytes(blanked.raw))
        return {"of": tenant, "on": row.chain_id, "at": row.position, "blank": sealed}

    async def _scrub(self) -> None:
        """Have SQLite overwrite what it still holds in its write-ahead log, as far as readers let it."""
        if self._database.is_sqlite:
            with available():
                async with self._database.reading() as connection:
                    await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    async def erase_tenant(self, tenant: str) -> int:
        """Forget everything of the tenant, keys last of all; how many rows that were. Raises `Unavailable`.

        Responses that are being made are lost to those who make them.
        """
        erased = 0
        for table in (runs, entries, responses, *KEPT, *self._beside, items):
            erased += await self._empty(table, tenant)
        with available():
            async with self._database.writing() as connection:
                await connection.execute(_UNTIE, {"of": tenant})
        erased += await self._empty(chains, tenant)
        if isinstance(self._sealer, Keyring):
            await self._sealer.shred(tenant)
        self._store.forget_opened(tenant)
        await self._scrub()
        return erased

    async def _forget(self, tenant: str, response_id: str) -> None:
        try:
            await self._store.delete(tenant, response_id)
        except NotFound:
            _log.debug("somebody else has forgotten %s", response_id)

    async def _ids(self, tenant: str, end_user: str | None) -> AsyncIterator[str]:
        await self._sealer.ready(tenant)
        subject = None if end_user is None else self._sealer.name(tenant, end_user)
        after = ""
        while True:
            wanted = {"of": tenant, "after": after, "everyone": end_user is None, "subject": subject, "limit": BATCH}
            rows = await self._rows(_IDS, wanted)
            for row in rows:
                yield row.id
            if len(rows) < BATCH:
                return
            after = rows[-1].id

    async def _empty(self, table: Table, tenant: str) -> int:
        """Delete all the tenant's rows of the table."""
        keys = tuple(table.primary_key.columns)
        some = select(*keys).where(table.c.tenant == tenant).limit(BATCH * 10)
        erased = 0
        while True:
            with available():
                async with self._database.writing() as connection:
                    gone = await connection.execute(
                        delete(table).where(and_(table.c.tenant == tenant, tuple_(*keys).in_(some)))
                    )
            erased += gone.rowcount
            if gone.rowcount <= 0:
                return erased

    async def _rows(self, statement: Any, wanted: dict[str, Any]) -> Sequence[Any]:
        with available():
            async with self._database.reading() as connection:
                return (await connection.execute(statement, wanted)).all()
