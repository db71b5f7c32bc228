"""History in SQLite or PostgreSQL, by the same statements. The shape and its laws are told in `tables`.

Every save and delete is one transaction; every read is a constant number of statements, whatever the depth.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Executable
from sqlalchemy.exc import IntegrityError

from app.db.engine import Database
from app.history import branches, lines
from app.history import statements as sql
from app.history.errors import available, check_item_ids, id_taken, no_cursor, not_found, storable, unavailable
from app.history.opened import OpenedContexts
from app.history.seal import Sealer
from app.responses.ports import ItemPage, StoredItem, StoredResponse
from app.turn.ids import IdSource

_log = logging.getLogger(__name__)


class SqlHistoryStore:
    """`HistoryStore` on a database whose schema is current.

    Positions that should be there and are not make the response `NotFound`: half a memory is none. `opened` holds
    contexts that were read lately; none: every context is read.
    """

    def __init__(self, database: Database, ids: IdSource, sealer: Sealer, opened: OpenedContexts | None = None) -> None:
        self._database = database
        self._ids = ids
        self._sealer = sealer
        self._opened = opened

    # ── reading ───────────────────────────────────────────────────────────────

    async def context(self, tenant: str, response_id: str) -> Sequence[StoredItem]:
        """All items up to and including the response's output, oldest first. Raises `NotFound`, `Unavailable`."""
        await self._sealer.ready(tenant)
        if self._opened is None:
            return await self._window(tenant, response_id, 0, None)
        return await self._context(tenant, response_id, self._opened)

    async def _context(self, tenant: str, response_id: str, opened: OpenedContexts) -> Sequence[StoredItem]:
        head = await self._one(sql.HEAD, tenant, response_id)
        if head is None:
            raise not_found(response_id)
        place, keys = response_place(response_id), branches.keys_of(self._sealer, tenant)
        held = opened.find(tenant, place, keys)
        if held is not None and (held.chain_id, len(held.items)) == (head.chain_id, head.end_position):
            return held.items
        # The context of the response before this one is how this one's begins, also when that one is gone by now.
        before = None if head.previous_id is None else opened.find(tenant, response_place(head.previous_id), keys)
        if before is not None and len(before.items) != head.start_position:
            before = None
        known = () if before is None else before.items
        new = (
            ()
            if len(known) == head.end_position
            else await self._window(tenant, response_id, len(known), head.end_position)
        )
        # Nothing is copied twice: there may be ten thousand.
        items = known + tuple(new)
        opened.hold(tenant, place, keys, head.chain_id, items, before)
        return items

    async def get(self, tenant: str, response_id: str) -> StoredResponse:
        """The response with its own input and output. Raises `NotFound`, `Unavailable`."""
        await self._sealer.ready(tenant)
        found = await self._one(sql.RESPONSE, tenant, response_id)
        if found is None:
            raise not_found(response_id)
        start, end = found.start_position, found.end_position
        own = await self._window(tenant, response_id, start, end) if end > start else ()
        split = found.input_end - start
        return StoredResponse(
            id=found.id,
            previous_id=found.previous_id,
            conversation_id=found.conversation_id,
            created_at=found.created_at,
            status=found.status,
            model=found.model,
            snapshot=msgspec.Raw(self._sealer.open(tenant, response_place(response_id), found.snapshot)),
            input=tuple(own[:split]),
            output=tuple(own[split:]),
            expires_at=found.expires_at,
        )

    async def find_items(self, tenant: str, item_ids: Sequence[str]) -> Mapping[str, StoredItem]:
        """Those of the items that are there, by their ids. Raises `Unavailable`."""
        asked = [item_id for item_id in item_ids if storable(item_id)]
        if not asked:
            return {}
        wanted = {"tenant": tenant, "ids": asked}
        with available():
            rows = await self._database.look(lambda connection: connection.execute(sql.FIND, wanted).all())
        return {row.item_id: branches.opened(self._sealer, tenant, row) for row in rows}

    async def input_items(
        self, tenant: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage:
        """A page of the response's context and own input, without its output.

        When an id occurs more than once, `after` means its last occurrence in the order asked for, so that paging
        always gets on. Raises `NotFound`, `InvalidRequest(param="after")`, `Unavailable`.
        """
        await self._sealer.ready(tenant)
        end, first, last = await self._cursor(tenant, response_id, after)
        if order == "asc":
            low = 0 if last is None else last + 1
            high = min(low + limit, end)
        else:
            high = end if first is None else first
            low = max(high - limit, 0)
        found = await self._window(tenant, response_id, low, high) if high > low else ()
        if order == "asc":
            return ItemPage(tuple(found), high < end)
        return ItemPage(tuple(reversed(found)), low > 0)

    async def _cursor(self, tenant: str, response_id: str, after: str | None) -> tuple[int, int | None, int | None]:
        if after is None:
            found = await self._one(sql.INPUT_END, tenant, response_id)
            if found is None:
                raise not_found(response_id)
            return found.input_end, None, None
        if not storable(after):
            raise no_cursor(after)
        end, first, last = await self._one(sql.CURSOR, tenant, response_id, after=after)
        if end is None:
            raise not_found(response_id)
        if first is None:
            raise no_cursor(after)
        return end, first, last

    async def _one(self, statement: Executable, tenant: str, response_id: str, **more: str) -> Any:
        """The one row there can be about a response. Raises `NotFound`, `Unavailable`."""
        if not storable(response_id):
            raise not_found(response_id)
        wanted = {**_key(tenant, response_id), **more}
        with available():
            return await self._database.look(lambda connection: connection.execute(statement, wanted).one_or_none())

    async def _window(self, tenant: str, response_id: str, low: int, high: int | None) -> Sequence[StoredItem]:
        if not storable(response_id):
            raise not_found(response_id)
        wanted = {**_key(tenant, response_id), "low": low, "high": sql.LAST if high is None else high}
        with available():
            rows = await self._database.look(lambda connection: connection.execute(sql.WINDOW, wanted).all())
        if not rows:
            raise not_found(response_id)
        found = branches.in_order(rows, low, high)
        if found is None:
            _log.error("items of response %s are missing", response_id)
            raise not_found(response_id)
        return await branches.all_opened(self._sealer, tenant, found)

    # ── writing ───────────────────────────────────────────────────────────────

    async def save(self, tenant: str, response: StoredResponse) -> None:
        """Store a finished response with its items, all or nothing.

        Raises `Conflict` when the id is taken, `NotFound` when the response it builds on is gone,
        `InvalidRequest(param="input")` for item ids that cannot be kept, `Unavailable`.
        """
        _check(response)
        await self._sealer.ready(tenant)
        with available():
            if await self._try(tenant, response, fork=False):
                return
            # The id is taken, or somebody else went on from the same tip in this moment: then this one forks.
            if await self._one(sql.EXISTS, tenant, response.id) is not None:
                raise id_taken(response.id)
            if await self._try(tenant, response, fork=True):
                return
        raise unavailable()

    async def _try(self, tenant: str, response: StoredResponse, *, fork: bool) -> bool:
        try:
            await self._database.transact(partial(self.write, tenant=tenant, response=response, fork=fork))
        except IntegrityError:
            return False
        return True

    def write(self, connection: Connection, tenant: str, response: StoredResponse, *, fork: bool) -> None:
        """Write the response and its items, as a part of the caller's transaction, with the keys at hand.

        Raises what `save` does before it begins, and `IntegrityError` when it has to `fork` or its id is taken.
        """
        _check(response)
        chain_id, start = self._place(connection, tenant, response, fork=fork)
        input_end = start + len(response.input)
        end = input_end + len(response.output)
        row: dict[str, Any] = {
            "tenant": tenant,
            "id": response.id,
            "chain_id": chain_id,
            "start_position": start,
            "input_end": input_end,
            "end_position": end,
            "previous_id": response.previous_id,
            "conversation_id": response.conversation_id,
            "created_at": response.created_at,
            "status": response.status,
            "model": response.model,
            "snapshot": self._sealer.seal(tenant, response_place(response.id), bytes(response.snapshot)),
            "expires_at": response.expires_at,
            "subject": None if response.end_user is None else self._sealer.name(tenant, response.end_user),
        }
        sql.ADD_RESPONSE.run(connection, row)
        given = chain(response.input, response.output)
        own = branches.rows(self._sealer, tenant, chain_id, start, given, repeat(row["subject"]))
        sql.ADD_ITEM.run_each(connection, own)
        if response.conversation_id is not None and response.joins:
            lines.move(connection, tenant, response.conversation_id, (chain_id, end))

    def _place(self, connection: Connection, tenant: str, response: StoredResponse, *, fork: bool) -> tuple[str, int]:
        """The chain and the position where the next items go; makes the chain when it is a new one."""
        parent, start, previous_id = None, 0, response.previous_id
        if response.conversation_id is not None:
            version = response.conversation_version if response.joins else None
            parent, start, overtaken = lines.tip(connection, tenant, response.conversation_id, version)
            if response.joins and not (overtaken or fork):
                return parent, start
        elif previous_id is not None:
            tip = connection.execute(sql.TIP, _key(tenant, previous_id)).one_or_none()
            if tip is None:
                raise not_found(previous_id)
            parent, start, overtaken = tip
            if not (overtaken or fork):
                return parent, start
        chain_id = self._ids.new("chain")
        row = {"tenant": tenant, "id": chain_id, "parent_id": parent, "fork_position": start}
        sql.ADD_CHAIN.run(connection, row)
        return chain_id, start

    async def delete(self, tenant: str, response_id: str) -> None:
        """Forget the response, and the items nothing else needs. Raises `NotFound`, `Unavailable`."""
        if not storable(response_id):
            raise not_found(response_id)

        def forget(connection: Connection) -> None:
            chain_id = connection.execute(sql.FORGET, _key(tenant, response_id)).scalar_one_or_none()
            if chain_id is None:
                raise not_found(response_id)
            connection.execute(sql.DROP_ENTRIES, _key(tenant, response_id))
            branches.prune(connection, tenant, chain_id)

        with available():
            await self._database.transact(forget)
        if self._opened is not None:
            self._opened.forget(tenant, response_place(response_id))

    def forget_opened(self, tenant: str) -> None:
        """Hold no context of the tenant's any more."""
        if self._opened is not None:
            self._opened.forget_all(tenant)


def _check(response: StoredResponse) -> None:
    check_item_ids(item.id for item in chain(response.input, response.output))
    if response.previous_id is not None and not storable(response.previous_id):
        raise not_found(response.previous_id)


def _key(tenant: str, response_id: str) -> dict[str, str]:
    return {"tenant": tenant, "response": response_id}


def response_place(response_id: str) -> str:
    """The place a response's snapshot is sealed for."""
    return f"responses/{response_id}"
