"""The statements of history, made once. Each has the tenant in every key it uses.

A lineage is the list of a context's segments, leaf first: (chain, first, stop) with first … stop - 1 read from that
chain. It is walked inside one statement, by primary key, one step for each fork (not for each response).
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    CTE,
    BindParameter,
    ColumnElement,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.schema import Table
from sqlalchemy.sql import Delete, Select

from app.db.prepared import Prepared
from app.history.desk_tables import conversations
from app.history.tables import chains, entries, items, responses

LAST: Final = 2**31 - 1

_TENANT: Final[BindParameter[str]] = bindparam("tenant")
_RESPONSE: Final[BindParameter[str]] = bindparam("response")
_CHAIN: Final[BindParameter[str]] = bindparam("chain")
_LOW: Final[BindParameter[int]] = bindparam("low")
_HIGH: Final[BindParameter[int]] = bindparam("high")


def _lineage(points: Table, stop: ColumnElement[int], down_to: ColumnElement[int]) -> CTE:
    """The lineage of what :response names among the rows of `points`: responses, or what else points at a chain."""
    leaf = (
        select(
            chains.c.id.label("chain_id"),
            chains.c.parent_id.label("parent_id"),
            chains.c.fork_position.label("first"),
            stop.label("stop"),
            stop.label("total"),
        )
        .join_from(points, chains, (chains.c.tenant == points.c.tenant) & (chains.c.id == points.c.chain_id))
        .where(points.c.tenant == _TENANT, points.c.id == _RESPONSE)
        .cte("lineage", recursive=True)
    )
    return leaf.union_all(
        select(chains.c.id, chains.c.parent_id, chains.c.fork_position, leaf.c.first, leaf.c.total).where(
            chains.c.tenant == _TENANT, chains.c.id == leaf.c.parent_id, leaf.c.first > down_to
        )
    )


def _within(lineage: CTE) -> ColumnElement[bool]:
    return and_(
        items.c.tenant == _TENANT,
        items.c.chain_id == lineage.c.chain_id,
        items.c.position >= lineage.c.first,
        items.c.position < lineage.c.stop,
    )


def window(points: Table, *more: ColumnElement[Any]) -> Select[Any]:
    """See `WINDOW`, for rows of `points`, which have an `end_position`; :response is the row's id. With `more` columns
    of `items`."""
    lineage = _lineage(points, points.c.end_position, _LOW)
    inside = and_(_within(lineage), items.c.position >= _LOW, items.c.position < _HIGH)
    columns = (lineage.c.total, items.c.chain_id, items.c.position, items.c.item_id, items.c.body, *more)
    return select(*columns).select_from(lineage.outerjoin(items, inside))


def cursor(points: Table, end: ColumnElement[int]) -> Select[Any, Any, Any]:
    """See `CURSOR`, for rows of `points` whose items end at `end`; :response is the row's id."""
    lineage = _lineage(points, end, literal_column("0"))
    inside = and_(_within(lineage), items.c.item_id == bindparam("after"))
    joined = lineage.outerjoin(items, inside)
    return select(func.max(lineage.c.total), func.min(items.c.position), func.max(items.c.position)).select_from(joined)


# (total, chain_id, position, item_id, body): the items of a response's context at [:low, :high), in no order. A segment
# without such items gives one row with a total only, so no row at all means: no such response.
WINDOW: Final = window(responses)

# (input_end, first, last): where the item :after is in the input of a response; None, None, None: no such response.
CURSOR: Final = cursor(responses, responses.c.input_end)

RESPONSE: Final[Select[Any]] = select(responses).where(responses.c.tenant == _TENANT, responses.c.id == _RESPONSE)

# Where the context of a response ends, and where its own items begin.
HEAD: Final[Select[Any, Any, Any, Any]] = select(
    responses.c.chain_id, responses.c.start_position, responses.c.end_position, responses.c.previous_id
).where(responses.c.tenant == _TENANT, responses.c.id == _RESPONSE)

EXISTS: Final[Select[Any]] = select(responses.c.id).where(responses.c.tenant == _TENANT, responses.c.id == _RESPONSE)

# (chain_id, position, item_id, body): the items that have one of these :ids, oldest first as far as one chain goes.
FIND: Final[Select[Any, Any, Any, Any]] = (
    select(items.c.chain_id, items.c.position, items.c.item_id, items.c.body)
    .where(items.c.tenant == _TENANT, items.c.item_id.in_(bindparam("ids", expanding=True)))
    .order_by(items.c.position)
)

INPUT_END: Final[Select[Any]] = select(responses.c.input_end).where(
    responses.c.tenant == _TENANT, responses.c.id == _RESPONSE
)

# (chain_id, end_position, overtaken): where a response ends, and whether its chain already goes on from there.
# Holding the row until the commit keeps the response from being deleted under the one that builds on it.
TIP: Final[Select[Any, Any, bool]] = (
    select(
        responses.c.chain_id,
        responses.c.end_position,
        exists().where(
            items.c.tenant == responses.c.tenant,
            items.c.chain_id == responses.c.chain_id,
            items.c.position == responses.c.end_position,
        ),
    )
    .where(responses.c.tenant == _TENANT, responses.c.id == _RESPONSE)
    .with_for_update(read=True, key_share=True, of=responses)
)

ADD_CHAIN: Final = Prepared(insert(chains), chains.c.keys())
ADD_RESPONSE: Final = Prepared(insert(responses), responses.c.keys())
ADD_ITEM: Final = Prepared(insert(items), items.c.keys())

FORGET: Final = (
    delete(responses).where(responses.c.tenant == _TENANT, responses.c.id == _RESPONSE).returning(responses.c.chain_id)
)

# Everything that builds on a chain touches its row, by foreign key; so this row is the lock of whoever prunes it.
HOLD_CHAIN: Final[Select[Any]] = (
    select(chains.c.parent_id).where(chains.c.tenant == _TENANT, chains.c.id == _CHAIN).with_for_update()
)

# (end, fork, end): the highest position a response, a child, and a conversation, needs; None: nobody.
NEEDED: Final[Select[Any, Any, Any]] = select(
    select(func.max(responses.c.end_position))
    .where(responses.c.tenant == _TENANT, responses.c.chain_id == _CHAIN)
    .scalar_subquery(),
    select(func.max(chains.c.fork_position))
    .where(chains.c.tenant == _TENANT, chains.c.parent_id == _CHAIN)
    .scalar_subquery(),
    select(func.max(conversations.c.end_position))
    .where(conversations.c.tenant == _TENANT, conversations.c.chain_id == _CHAIN)
    .scalar_subquery(),
)

DROP_ITEMS: Final[Delete] = delete(items).where(
    items.c.tenant == _TENANT, items.c.chain_id == _CHAIN, items.c.position >= _LOW
)
DROP_CHAIN: Final[Delete] = delete(chains).where(chains.c.tenant == _TENANT, chains.c.id == _CHAIN)

DROP_ENTRIES: Final[Delete] = delete(entries).where(entries.c.tenant == _TENANT, entries.c.response_id == _RESPONSE)
