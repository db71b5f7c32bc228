"""A context that was read lately is not read again, and is never found by those who may not have it."""

from __future__ import annotations

import os
import random
import time

import msgspec
import pytest

from app.db.engine import Database
from app.history.conversations import SqlConversationStore
from app.history.keyring import FRESH_SECS, Keyring, Master
from app.history.opened import OpenedContexts
from app.history.seal import Clear
from app.history.store import SqlHistoryStore
from app.responses.ports import StoredItem
from app.responses.stores import Conversation
from app.turn.errors import NotFound, Unavailable
from app.turn.ids import RandomIds
from tests.contract.history.making import build, ids, item, response
from tests.support.waiting import eventually


class Hands:
    """A clock turned by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


class Counting(Clear):
    """Counts what is opened."""

    def __init__(self) -> None:
        self.count = 0

    def open(self, tenant: str, place: str, sealed: bytes) -> bytes:
        self.count += 1
        return super().open(tenant, place, sealed)


async def test_a_turn_that_goes_on_opens_only_what_is_new(database: Database, tenant: str) -> None:
    sealer = Counting()
    store = SqlHistoryStore(database, RandomIds(), sealer, OpenedContexts(10**6, 60.0, time.monotonic))
    await build(store, tenant, {"a": None, "b": "a", "c": "b"})
    assert len(await store.context(tenant, "b")) == 6
    assert sealer.count == 6
    expected = await SqlHistoryStore(database, RandomIds(), Clear()).context(tenant, "c")
    assert list(await store.context(tenant, "c")) == list(expected)
    assert sealer.count == 9
    assert list(await store.context(tenant, "c")) == list(expected)
    assert sealer.count == 9
    # A fork from a held context, too.
    await build(store, tenant, {"fork": "b"})
    assert ids(await store.context(tenant, "fork"))[6:] == ["fork_i0", "fork_o0", "fork_o1"]
    assert sealer.count == 12


async def test_the_response_before_may_be_gone(database: Database, tenant: str) -> None:
    store = SqlHistoryStore(database, RandomIds(), Clear(), OpenedContexts(10**6, 60.0, time.monotonic))
    await build(store, tenant, {"a": None, "b": "a"})
    await store.context(tenant, "a")
    await SqlHistoryStore(database, RandomIds(), Clear()).delete(tenant, "a")
    assert len(await store.context(tenant, "b")) == 6
    with pytest.raises(NotFound):
        await store.context(tenant, "a")


async def test_what_is_deleted_elsewhere_is_not_found_here(database: Database, tenant: str) -> None:
    store = SqlHistoryStore(database, RandomIds(), Clear(), OpenedContexts(10**6, 60.0, time.monotonic))
    elsewhere = SqlHistoryStore(database, RandomIds(), Clear())
    await build(store, tenant, {"a": None, "b": "a"})
    assert len(await store.context(tenant, "b")) == 6
    await elsewhere.delete(tenant, "b")
    with pytest.raises(NotFound):
        await store.context(tenant, "b")
    # Another one goes on at the same positions of the same chain.
    await build(elsewhere, tenant, {"other": "a"})
    assert ids(await store.context(tenant, "other"))[3:] == ["other_i0", "other_o0", "other_o1"]
    with pytest.raises(NotFound):
        await store.context("somebody-else", "other")


async def test_a_deleted_response_is_let_go_of_at_once(database: Database, tenant: str) -> None:
    held = OpenedContexts(10**6, 60.0, time.monotonic)
    store = SqlHistoryStore(database, RandomIds(), Clear(), held)
    await build(store, tenant, {"a": None})
    await store.context(tenant, "a")
    assert held.size > 0
    await store.delete(tenant, "a")
    assert held.size == 0


async def test_what_was_shredded_is_not_found_though_its_row_is_there(database: Database, tenant: str) -> None:
    master, clock = Master(os.urandom(32)), Hands()
    here, elsewhere = Keyring(database, [master], clock), Keyring(database, [master], clock)
    store = SqlHistoryStore(database, RandomIds(), here, OpenedContexts(10**6, 1e9, time.monotonic))
    await build(store, tenant, {"a": None})
    assert len(await store.context(tenant, "a")) == 3
    await elsewhere.shred(tenant)
    clock.time = FRESH_SECS + 1
    with pytest.raises(Unavailable):
        await store.context(tenant, "a")


async def test_a_conversation_reads_what_is_new_and_notices_what_was_taken_out(database: Database, tenant: str) -> None:
    sealer = Counting()
    talks = SqlConversationStore(database, RandomIds(), sealer, OpenedContexts(10**6, 60.0, time.monotonic))
    elsewhere = SqlConversationStore(database, RandomIds(), Clear())
    first = [item(f"x{k}") for k in range(5)]
    await talks.create(tenant, Conversation(id="conv", created_at=1, metadata={}), first)
    assert len((await talks.context(tenant, "conv")).items) == 5
    sealer.count = 0
    await elsewhere.append(tenant, "conv", [item("y")])
    assert ids((await talks.context(tenant, "conv")).items) == [*ids(first), "y"]
    assert sealer.count <= 3  # the new item, and metadata
    await elsewhere.drop_item(tenant, "conv", "x1")
    assert ids((await talks.context(tenant, "conv")).items) == ["x0", "x2", "x3", "x4", "y"]
    await talks.drop_item(tenant, "conv", "y")
    assert ids((await talks.context(tenant, "conv")).items) == ["x0", "x2", "x3", "x4"]


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_it_says_what_one_that_holds_nothing_says(
    database: Database, tenant: str, seed: int
) -> None:
    chance = random.Random(seed)
    store = SqlHistoryStore(database, RandomIds(), Clear(), OpenedContexts(6000, 60.0, time.monotonic))
    plain = SqlHistoryStore(database, RandomIds(), Clear())
    live: list[str] = []
    for k in range(80):
        act = chance.random()
        if live and act < 0.2:
            await chance.choice((store, plain)).delete(tenant, live.pop(chance.randrange(len(live))))
        elif live and act < 0.5:
            name = chance.choice(live)
            assert list(await store.context(tenant, name)) == list(await plain.context(tenant, name))
        else:
            previous = chance.choice([*live[-3:], None])
            made = response(f"r{k}", previous, given=chance.randint(0, 2), made=chance.randint(0, 2))
            await chance.choice((store, plain)).save(tenant, made)
            live.append(made.id)
    for name in live:
        assert list(await store.context(tenant, name)) == list(await plain.context(tenant, name))


# ── what is held ──────────────────────────────────────────────────────────────


def _items(count: int, length: int = 1000) -> tuple[StoredItem, ...]:
    return tuple(StoredItem(f"i{k}", msgspec.Raw(b'"' + b"x" * length + b'"')) for k in range(count))


async def test_it_holds_no_more_than_it_may() -> None:
    held = OpenedContexts(10_000, 60.0, Hands())
    for k in range(20):
        held.hold("t", f"p{k}", "k", "c", _items(3), None)
        assert 0 < held.size <= 10_000
    assert held.find("t", "p0", "k") is None
    assert held.find("t", "p19", "k") is not None
    # What was asked for stays longer than what was not.
    for k in range(20, 22):
        held.find("t", "p18", "k")
        held.hold("t", f"p{k}", "k", "c", _items(3), None)
    assert held.find("t", "p18", "k") is not None
    held.hold("t", "p18", "k", "c", _items(50), None)
    assert held.find("t", "p18", "k") is None
    held.forget_all("t")
    assert held.size == 0


async def test_what_was_gone_on_from_makes_room_before_what_was_not() -> None:
    held = OpenedContexts(13_000, 60.0, Hands())
    held.hold("t", "other", "k", "c", _items(3), None)
    base, items = None, _items(1)
    for k in range(4):
        items = (*items, *_items(1))
        held.hold("t", f"p{k}", "k", "c", items, base)
        base = held.find("t", f"p{k}", "k")
        assert base is not None
    assert held.find("t", "other", "k") is not None
    assert held.find("t", "p0", "k") is None
    assert held.size <= 13_000


async def test_it_holds_nothing_for_longer_than_it_may_even_if_nobody_asks() -> None:
    clock = Hands()
    held = OpenedContexts(10_000, 0.05, clock)
    items = _items(2)
    held.hold("t", "p", "k", "c", items, None)
    first = held.find("t", "p", "k")
    assert first is not None
    held.hold("t", "q", "k", "c", (*items, *_items(1)), first)
    second = held.find("t", "q", "k")
    # What goes on from it does not last longer.
    assert second is not None
    assert second.until == first.until
    clock.time = 0.05
    await eventually(lambda: held.size == 0)


async def test_other_keys_and_other_tenants_find_nothing() -> None:
    held = OpenedContexts(10_000, 60.0, Hands())
    held.hold("t", "p", "k", "c", _items(1), None)
    assert held.find("u", "p", "k") is None
    assert held.find("t", "p", "other keys") is None
    assert held.size == 0
