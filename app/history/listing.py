"""The stored responses as a list: two statements a page, whatever is on it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import msgspec
from sqlalchemy import bindparam, select

from app.db.engine import Database
from app.history import branches
from app.history.errors import available
from app.history.paging import page_of
from app.history.seal import Sealer
from app.history.store import response_place
from app.history.tables import items, responses
from app.responses.stores import Filter, Listed, Order, Page, StoredItem

# A response's own items are on its own chain.
_OUTPUT: Final = (
    select(responses.c.id, items.c.chain_id, items.c.position, items.c.item_id, items.c.body)
    .join_from(
        responses,
        items,
        (items.c.tenant == responses.c.tenant)
        & (items.c.chain_id == responses.c.chain_id)
        & (items.c.position >= responses.c.input_end)
        & (items.c.position < responses.c.end_position),
    )
    .where(responses.c.tenant == bindparam("of"), responses.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(items.c.position)
)


class SqlResponseIndex:
    """`ResponseIndex` on a database whose schema is current."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def listed(self, tenant: str, only: Filter, *, limit: int, order: Order, after: str | None) -> Page[Listed]:
        """See `ResponseIndex`."""
        await self._sealer.ready(tenant)
        wanted = {
            responses.c.model: only.model,
            responses.c.status: only.status,
            responses.c.conversation_id: only.conversation,
        }
        conditions = [column == value for column, value in wanted.items() if value is not None]
        with available():
            async with self._database.reading() as connection:
                asked = page_of(responses, limit=limit, order=order, after=after, only=conditions)
                rows = await asked.fetch(connection, tenant)
                ids = [row.id for row in rows[:limit]]
                found = (await connection.execute(_OUTPUT, {"of": tenant, "ids": ids})).all() if ids else ()
        output: defaultdict[str, list[StoredItem]] = defaultdict(list)
        for row in found:
            output[row.id].append(branches.opened(self._sealer, tenant, row))
        return Page(tuple(self._listed(tenant, row, output[row.id]) for row in rows[:limit]), len(rows) > limit)

    def _listed(self, tenant: str, row: Any, output: list[StoredItem]) -> Listed:
        snapshot = self._sealer.open(tenant, response_place(row.id), row.snapshot)
        return Listed(row.id, msgspec.Raw(snapshot), tuple(output))
