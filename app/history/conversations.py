"""Conversations in SQLite or PostgreSQL. Their place in the tree of items is told in `desk_tables`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection, Row
from sqlalchemy.exc import IntegrityError

from app.db.engine import Database
from app.history import branches, lines
from app.history import conversation_statements as sql
from app.history import statements as tree
from app.history.desk_tables import conversations
from app.history.errors import (
    available,
    check_item_ids,
    conversation_locked,
    no_conversation,
    no_cursor,
    no_item,
    storable,
)
from app.history.lines import key
from app.history.opened import OpenedContexts
from app.history.paging import page_of
from app.history.seal import Sealer
from app.responses.ports import ItemPage, StoredItem
from app.responses.stores import Conversation, OpenConversation, Order, Page
from app.turn.ids import IdSource

_log = logging.getLogger(__name__)

_metadata = msgspec.json.Decoder(dict[str, str])


class SqlConversationStore:
    """`ConversationStore` on a database whose schema is current. Every change is one transaction."""

    def __init__(self, database: Database, ids: IdSource, sealer: Sealer, opened: OpenedContexts | None = None) -> None:
        self._database = database
        self._ids = ids
        self._sealer = sealer
        self._opened = opened

    # ── conversations ─────────────────────────────────────────────────────────

    async def create(self, tenant: str, conversation: Conversation, items: Sequence[StoredItem]) -> None:
        """See `ConversationStore`."""
        check_item_ids(item.id for item in items)
        await self._sealer.ready(tenant)
        chain_id = self._ids.new("chain")
        row = {
            "tenant": tenant,
            "id": conversation.id,
            "chain_id": chain_id,
            "end_position": len(items),
            "version": 0,
            "created_at": conversation.created_at,
            "metadata": self._sealed(tenant, conversation.id, conversation.metadata),
            "expires_at": conversation.expires_at,
        }

        def write(connection: Connection) -> None:
            self._add_chain(connection, tenant, chain_id, None, 0)
            self._add_items(connection, tenant, chain_id, 0, items)
            connection.execute(sql.ADD, row)

        with available():
            await self._database.transact(write)

    async def get(self, tenant: str, conversation_id: str) -> Conversation:
        """See `ConversationStore`."""
        return self._conversation(tenant, await self._row(tenant, conversation_id))

    async def listed(self, tenant: str, *, limit: int, order: Order, after: str | None) -> Page[Conversation]:
        """See `ConversationStore`."""
        await self._sealer.ready(tenant)
        with available():
            async with self._database.reading() as connection:
                asked = page_of(conversations, limit=limit, order=order, after=after)
                rows = await asked.fetch(connection, tenant)
        return Page(tuple(self._conversation(tenant, row) for row in rows[:limit]), len(rows) > limit)

    async def update(self, tenant: str, conversation_id: str, metadata: dict[str, str]) -> Conversation:
        """See `ConversationStore`."""
        _check(conversation_id)
        await self._sealer.ready(tenant)
        sealed = self._sealed(tenant, conversation_id, metadata)
        change = {"key_tenant": tenant, "key_id": conversation_id, "to_metadata": sealed}
        with available():
            row = await self._database.transact(
                lambda connection: connection.execute(sql.SET_METADATA, change).one_or_none()
            )
        if row is None:
            raise no_conversation(conversation_id)
        return Conversation(id=conversation_id, created_at=row.created_at, metadata=metadata, expires_at=row.expires_at)

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """See `ConversationStore`."""
        _check(conversation_id)

        def forget(connection: Connection) -> None:
            chain_id, _, _ = lines.free_tip(connection, tenant, conversation_id)
            connection.execute(sql.FORGET, key(tenant, conversation_id))
            branches.prune(connection, tenant, chain_id)

        with available():
            await self._database.transact(forget)
        self._forget(tenant, conversation_id)

    # ── items ─────────────────────────────────────────────────────────────────

    async def context(self, tenant: str, conversation_id: str) -> OpenConversation:
        """See `ConversationStore`."""
        # The version is read first: should the items be newer than it, nothing can be added to them.
        row = await self._row(tenant, conversation_id)
        if self._opened is None:
            items = await self._window(tenant, conversation_id, 0, None)
        else:
            items = await self._context(tenant, row, self._opened)
        return OpenConversation(items, row.version, row.expires_at)

    async def _context(self, tenant: str, row: Any, opened: OpenedContexts) -> tuple[StoredItem, ...]:
        place, keys = conversation_place(row.id), branches.keys_of(self._sealer, tenant)
        held = opened.find(tenant, place, keys)
        # On one chain a conversation only grows: what is taken out of it, or overtaken, makes it fork.
        if held is not None and (held.chain_id != row.chain_id or len(held.items) > row.end_position):
            held = None
        known = () if held is None else held.items
        if len(known) == row.end_position:
            return known
        items = known + await self._window(tenant, row.id, len(known), row.end_position)
        opened.hold(tenant, place, keys, row.chain_id, items, held)
        return items

    async def append(self, tenant: str, conversation_id: str, items: Sequence[StoredItem]) -> None:
        """See `ConversationStore`."""
        check_item_ids(item.id for item in items)
        await self._sealer.ready(tenant)
        with available():
            for fork in (False, True):
                try:
                    await self._database.transact(
                        partial(self._append, tenant=tenant, conversation_id=conversation_id, items=items, fork=fork)
                    )
                except IntegrityError:
                    continue
                return
        raise conversation_locked()

    def _append(
        self, connection: Connection, tenant: str, conversation_id: str, items: Sequence[StoredItem], *, fork: bool
    ) -> None:
        chain_id, end, overtaken = lines.free_tip(connection, tenant, conversation_id)
        if overtaken or fork:
            parent, chain_id = chain_id, self._ids.new("chain")
            self._add_chain(connection, tenant, chain_id, parent, end)
        self._add_items(connection, tenant, chain_id, end, items)
        lines.move(connection, tenant, conversation_id, (chain_id, end + len(items)))

    async def items(
        self, tenant: str, conversation_id: str, *, limit: int, order: Order, after: str | None
    ) -> ItemPage:
        """See `ConversationStore`. Of an id that is there more than once, `after` means the last in that order."""
        row = await self._row(tenant, conversation_id)
        low, high = 0, row.end_position
        if after is not None:
            place = await self._found(tenant, conversation_id, after)
            if place is None:
                raise no_cursor(after)
            low, high = (place[1] + 1, high) if order == "asc" else (low, place[0])
        first, stop = (low, min(low + limit, high)) if order == "asc" else (max(high - limit, low), high)
        found = await self._window(tenant, conversation_id, first, stop) if stop > first else ()
        if order == "asc":
            return ItemPage(found, stop < row.end_position)
        return ItemPage(found[::-1], first > 0)

    async def item(self, tenant: str, conversation_id: str, item_id: str) -> StoredItem:
        """See `ConversationStore`."""
        await self._row(tenant, conversation_id)
        place = await self._found(tenant, conversation_id, item_id)
        if place is None:
            raise no_item(item_id)
        (found,) = await self._window(tenant, conversation_id, place[1], place[1] + 1)
        return found

    async def drop_item(self, tenant: str, conversation_id: str, item_id: str) -> Conversation:
        """See `ConversationStore`. What comes after the item is written again, on a chain that forks before it."""
        row = await self._row(tenant, conversation_id)

        def write(connection: Connection) -> None:
            chain_id, end, _ = lines.free_tip(connection, tenant, conversation_id)
            place = self._find(connection, tenant, conversation_id, item_id)
            if place is None:
                raise no_item(item_id)
            first = place[0]
            rows = self._placed(connection, tenant, conversation_id, (first, end), sql.OWNED)
            # The chain that holds the item also holds, or leads to, everything before it.
            holder = rows[0].chain_id if first else None
            kept = [each for each in rows if each.item_id != item_id]
            rest = [branches.opened(self._sealer, tenant, each) for each in kept]
            forked = self._ids.new("chain")
            self._add_chain(connection, tenant, forked, holder, first)
            owners = [each.subject for each in kept]
            self._add_items(connection, tenant, forked, first, rest, owners)
            lines.move(connection, tenant, conversation_id, (forked, first + len(rest)))
            branches.prune(connection, tenant, chain_id)

        with available():
            await self._database.transact(write)
        self._forget(tenant, conversation_id)
        return self._conversation(tenant, row)

    # ── rows ──────────────────────────────────────────────────────────────────

    async def _row(self, tenant: str, conversation_id: str) -> Any:
        _check(conversation_id)
        await self._sealer.ready(tenant)
        wanted = key(tenant, conversation_id)
        with available():
            found = await self._database.look(
                lambda connection: connection.execute(sql.CONVERSATION, wanted).one_or_none()
            )
        if found is None:
            raise no_conversation(conversation_id)
        return found

    async def _found(self, tenant: str, conversation_id: str, item_id: str) -> tuple[int, int] | None:
        with available():
            return await self._database.look(
                partial(self._find, tenant=tenant, conversation_id=conversation_id, item_id=item_id)
            )

    def _find(self, connection: Connection, tenant: str, conversation_id: str, item_id: str) -> tuple[int, int] | None:
        """The first and the last position of the item."""
        if not storable(item_id):
            return None
        asked = {**key(tenant, conversation_id), "after": item_id}
        _, first, last = connection.execute(sql.CURSOR, asked).one()
        return None if first is None else (first, last)

    async def _window(self, tenant: str, conversation_id: str, low: int, high: int | None) -> tuple[StoredItem, ...]:
        span = (low, high)
        with available():
            found = await self._database.look(
                partial(self._placed, tenant=tenant, conversation_id=conversation_id, span=span)
            )
        return tuple(await branches.all_opened(self._sealer, tenant, found))

    def _placed(
        self,
        connection: Connection,
        tenant: str,
        conversation_id: str,
        span: tuple[int, int | None],
        window: Any = sql.WINDOW,
    ) -> Sequence[branches.Placed]:
        low, high = span
        bounds = {"low": low, "high": tree.LAST if high is None else high}
        rows: Sequence[Row[Any]] = connection.execute(window, {**key(tenant, conversation_id), **bounds}).all()
        if not rows:
            raise no_conversation(conversation_id)
        found = branches.in_order(rows, low, high)
        if found is None:
            _log.error("items of conversation %s are missing", conversation_id)
            raise conversation_locked()
        return found

    def _add_chain(self, connection: Connection, tenant: str, chain_id: str, parent: str | None, fork: int) -> None:
        row = {"tenant": tenant, "id": chain_id, "parent_id": parent, "fork_position": fork}
        tree.ADD_CHAIN.run(connection, row)

    def _add_items(
        self,
        connection: Connection,
        tenant: str,
        chain_id: str,
        start: int,
        items: Sequence[StoredItem],
        owners: Sequence[str | None] = (),
    ) -> None:
        rows = branches.rows(self._sealer, tenant, chain_id, start, items, owners)
        if rows:
            tree.ADD_ITEM.run_each(connection, rows)

    def _forget(self, tenant: str, conversation_id: str) -> None:
        if self._opened is not None:
            self._opened.forget(tenant, conversation_place(conversation_id))

    def _sealed(self, tenant: str, conversation_id: str, metadata: dict[str, str]) -> bytes:
        return self._sealer.seal(tenant, conversation_place(conversation_id), msgspec.json.encode(metadata))

    def _conversation(self, tenant: str, row: Any) -> Conversation:
        plain = self._sealer.open(tenant, conversation_place(row.id), row.metadata)
        metadata = _metadata.decode(plain)
        return Conversation(id=row.id, created_at=row.created_at, metadata=metadata, expires_at=row.expires_at)


def _check(conversation_id: str) -> None:
    if not storable(conversation_id):
        raise no_conversation(conversation_id)


def conversation_place(conversation_id: str) -> str:
    """The place a conversation's metadata is sealed for."""
    return f"conversations/{conversation_id}"
