"""Pages of things by age: by when they were created, and by id among those of the same second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Table, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.history.errors import storable
from app.responses.stores import Order
from app.turn.errors import InvalidRequest


class PageOf(Struct, frozen=True, kw_only=True):
    """A page of the rows of `table`, which have `tenant`, `id` and `created_at`."""

    table: Table
    limit: int
    order: Order
    after: str | None
    only: tuple[ColumnElement[bool], ...] = ()

    async def fetch(self, connection: AsyncConnection, tenant: str) -> Sequence[Any]:
        """The rows of the page, and one more if there is one. Raises `InvalidRequest(param="after")`."""
        rows, wanted = self.table.c, select(self.table).where(self.table.c.tenant == tenant, *self.only)
        age = tuple_(rows.created_at, rows.id)
        if self.after is not None:
            at = await self._at(connection, tenant, self.after)
            wanted = wanted.where(age > at if self.order == "asc" else age < at)
        up = self.order == "asc"
        columns = (rows.created_at, rows.id)
        wanted = wanted.order_by(*(column.asc() if up else column.desc() for column in columns))
        return (await connection.execute(wanted.limit(self.limit + 1))).all()

    async def _at(self, connection: AsyncConnection, tenant: str, after: str) -> Any:
        rows = self.table.c
        found = None
        if storable(after):
            mine = select(rows.created_at, rows.id).where(rows.tenant == tenant, rows.id == after)
            found = (await connection.execute(mine)).one_or_none()
        if found is None:
            raise InvalidRequest(f"There is nothing with id '{after}' to go on after.", param="after")
        return tuple_(found.created_at, found.id)


def page_of(
    table: Table, *, limit: int, order: Order, after: str | None, only: Sequence[ColumnElement[bool]] = ()
) -> PageOf:
    """A page of `table`'s rows that fulfil `only`."""
    return PageOf(table=table, limit=limit, order=order, after=after, only=tuple(only))
