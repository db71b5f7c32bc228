"""Pages of things by age (when they were created, and by id among those of the same second), and of items by place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

from msgspec import Struct
from sqlalchemy import ColumnElement, Table, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.history.errors import no_cursor, storable
from app.responses.stores import ItemPage, Order
from app.turn.errors import InvalidRequest
from app.turn.items import StoredItem


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
            raise _nowhere(after)
        return tuple_(found.created_at, found.id)


def page_of(
    table: Table, *, limit: int, order: Order, after: str | None, only: Sequence[ColumnElement[bool]] = ()
) -> PageOf:
    """A page of `table`'s rows that fulfil `only`."""
    return PageOf(table=table, limit=limit, order=order, after=after, only=tuple(only))


class Aged(Protocol):
    """What has an id and an age."""

    @property
    def id(self) -> str: ...

    @property
    def created_at(self) -> int: ...


_A = TypeVar("_A", bound=Aged)


def slice_of(every: Iterable[_A], *, limit: int, order: Order, after: str | None) -> tuple[list[_A], bool]:
    """The same page of what is at hand, and whether there is more. Raises `InvalidRequest(param="after")`."""
    ordered = sorted(every, key=lambda each: (each.created_at, each.id), reverse=order == "desc")
    first = 0
    if after is not None:
        first = next((index + 1 for index, each in enumerate(ordered) if each.id == after), -1)
        if first < 0:
            raise _nowhere(after)
    return ordered[first : first + limit], first + limit < len(ordered)


def _nowhere(after: str) -> InvalidRequest:
    return InvalidRequest(f"There is nothing with id '{after}' to go on after.", param="after")


def page_of_items(items: tuple[StoredItem, ...], *, limit: int, order: Order, after: str | None) -> ItemPage:
    """A page of `items`, which are given oldest first. Raises `InvalidRequest(param="after")`."""
    ordered = items if order == "asc" else items[::-1]
    first = 0
    if after is not None:
        places = [index for index, item in enumerate(ordered) if item.id == after]
        if not places:
            raise no_cursor(after)
        first = places[-1] + 1
    return ItemPage(ordered[first : first + limit], first + limit < len(ordered))
