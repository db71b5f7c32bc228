"""What everything that points into the tree of items does alike: write items on a chain, read a window of them, and
drop what nothing points at any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, Final, TypeAlias

import msgspec
from sqlalchemy import Connection, Row

from app.history import statements as sql
from app.history.seal import Sealer
from app.responses.ports import StoredItem

# So many items are opened before others get their turn: about two milliseconds' worth.
_AT_ONCE: Final = 512

Placed: TypeAlias = Row[Any]  # a row of `statements.WINDOW`
# By number: there may be ten thousand rows, and a name is looked up in each.
_position = itemgetter(2)
_whole = itemgetter(1, 2, 3, 4)


def place_of(chain_id: str, position: int) -> str:
    """The place an item's body is sealed for."""
    return f"items/{chain_id}/{position}"


def opened(sealer: Sealer, tenant: str, row: Any) -> StoredItem:
    """The item in a row with `chain_id`, `position`, `item_id` and `body`."""
    plain = sealer.open(tenant, place_of(row.chain_id, row.position), row.body)
    return StoredItem(row.item_id, msgspec.Raw(plain))


async def all_opened(sealer: Sealer, tenant: str, found: Sequence[Placed]) -> list[StoredItem]:
    """The items in the rows. A long context does not make everybody else wait."""
    items: list[StoredItem] = []
    for start in range(0, len(found), _AT_ONCE):
        if start:
            await asyncio.sleep(0)
        items += [
            StoredItem(item_id, msgspec.Raw(sealer.open(tenant, place_of(chain_id, position), body)))
            for chain_id, position, item_id, body in map(_whole, found[start : start + _AT_ONCE])
        ]
    return items


def keys_of(sealer: Sealer, tenant: str) -> str:
    """A name for the tenant's keys: of a tenant whose keys were shredded there is another one."""
    return sealer.name(tenant, "opened contexts")


def rows(
    sealer: Sealer, tenant: str, chain_id: str, start: int, own: Iterable[StoredItem], owners: Iterable[str | None] = ()
) -> list[dict[str, str | int | bytes | None]]:
    """Rows for items that follow each other on a chain, from `start` on. `owners` are whose they are, nobody's beyond
    the last."""
    return [
        {
            "tenant": tenant,
            "chain_id": chain_id,
            "position": position,
            "item_id": item.id,
            "body": sealer.seal(tenant, place_of(chain_id, position), bytes(item.raw)),
            "subject": owner,
        }
        for position, (item, owner) in enumerate(zip(own, chain(owners, repeat(None)), strict=False), start)
    ]


def in_order(found: Sequence[Placed], low: int, high: int | None) -> list[Placed] | None:
    """The rows of a window [low, high) by position; None when one is missing. `found` is not empty."""
    there = sorted((row for row in found if _position(row) is not None), key=_position)
    end = found[0].total if high is None else high
    return there if len(there) == end - low else None


def prune(connection: Connection, tenant: str, chain_id: str) -> None:
    """Drop what nothing needs of the chain; of its parents too, when the chain itself goes."""
    next_one: str | None = chain_id
    while next_one is not None:
        next_one = _prune(connection, tenant, next_one)


def _prune(connection: Connection, tenant: str, chain_id: str) -> str | None:
    key = {"tenant": tenant, "chain": chain_id}
    held = connection.execute(sql.HOLD_CHAIN, key).one_or_none()
    if held is None:
        return None
    needed = [each for each in connection.execute(sql.NEEDED, key).one() if each is not None]
    connection.execute(sql.DROP_ITEMS, {**key, "low": max(needed, default=0)})
    if needed:
        return None
    connection.execute(sql.DROP_CHAIN, key)
    return held.parent_id
