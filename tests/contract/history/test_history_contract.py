"""What every history store promises, on the twin, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import json

import msgspec
import pytest

from app.responses.ports import HistoryStore, StoredItem
from app.turn.errors import Conflict, InvalidRequest, NotFound
from tests.contract.history.making import build, ids, item, response


async def test_a_response_comes_back_as_it_was_saved(store: HistoryStore, tenant: str) -> None:
    raw = json.dumps({"text": "naïve \U0001f411 \x00 “quoted”", "n": 1.0}, ensure_ascii=True).encode()
    odd = StoredItem("msg_odd", msgspec.Raw(b'  {"unknown":  "field", "type":"brand_new"}'))
    saved = msgspec.structs.replace(
        response("resp_1", made=0),
        status="incomplete",
        snapshot=msgspec.Raw(raw),
        output=(odd, item("msg_2")),
    )
    await store.save(tenant, saved)
    found = await store.get(tenant, "resp_1")
    assert msgspec.structs.asdict(found).keys() == msgspec.structs.asdict(saved).keys()
    for field in ("id", "previous_id", "conversation_id", "created_at", "status", "model"):
        assert getattr(found, field) == getattr(saved, field)
    assert bytes(found.snapshot) == raw
    assert [(each.id, bytes(each.raw)) for each in found.input] == [(e.id, bytes(e.raw)) for e in saved.input]
    assert [(each.id, bytes(each.raw)) for each in found.output] == [(e.id, bytes(e.raw)) for e in saved.output]


async def test_a_continuation_has_its_own_items_and_the_whole_context(store: HistoryStore, tenant: str) -> None:
    await build(store, tenant, {"a": None, "b": "a", "c": "b"})
    assert ids(await store.context(tenant, "a")) == ["a_i0", "a_o0", "a_o1"]
    expected = ["a_i0", "a_o0", "a_o1", "b_i0", "b_o0", "b_o1", "c_i0", "c_o0", "c_o1"]
    assert ids(await store.context(tenant, "c")) == expected
    found = await store.get(tenant, "b")
    assert (ids(found.input), ids(found.output), found.previous_id) == (["b_i0"], ["b_o0", "b_o1"], "a")


async def test_forks_share_what_came_before_and_nothing_else(store: HistoryStore, tenant: str) -> None:
    await build(store, tenant, {"a": None, "b": "a", "left": "b", "right": "b", "early": "a", "deep": "right"})
    prefix = ["a_i0", "a_o0", "a_o1"]
    assert ids(await store.context(tenant, "early")) == [*prefix, "early_i0", "early_o0", "early_o1"]
    prefix += ["b_i0", "b_o0", "b_o1"]
    assert ids(await store.context(tenant, "left")) == [*prefix, "left_i0", "left_o0", "left_o1"]
    prefix += ["right_i0", "right_o0", "right_o1"]
    assert ids(await store.context(tenant, "right")) == prefix
    assert ids(await store.context(tenant, "deep")) == [*prefix, "deep_i0", "deep_o0", "deep_o1"]


async def test_responses_without_items_are_links_like_any_other(store: HistoryStore, tenant: str) -> None:
    await store.save(tenant, response("empty", given=0, made=0))
    assert list(await store.context(tenant, "empty")) == []
    assert (await store.get(tenant, "empty")).input == ()
    assert await store.input_items(tenant, "empty", limit=5, order="asc", after=None) == await store.input_items(
        tenant, "empty", limit=5, order="desc", after=None
    )
    await store.save(tenant, response("next", "empty"))
    await store.save(tenant, response("gap", "next", given=0, made=0))
    await store.save(tenant, response("beside", "next"))
    await store.save(tenant, response("after_gap", "gap"))
    assert ids(await store.context(tenant, "gap")) == ["next_i0", "next_o0", "next_o1"]
    assert ids(await store.context(tenant, "after_gap"))[3:] == ["after_gap_i0", "after_gap_o0", "after_gap_o1"]
    assert ids(await store.context(tenant, "beside"))[3:] == ["beside_i0", "beside_o0", "beside_o1"]


async def test_concurrent_continuations_all_land_and_do_not_mix(store: HistoryStore, tenant: str) -> None:
    await store.save(tenant, response("root"))
    names = [f"n{k}" for k in range(12)]
    await asyncio.gather(*(store.save(tenant, response(name, "root")) for name in names))
    for name in names:
        expected = ["root_i0", "root_o0", "root_o1", f"{name}_i0", f"{name}_o0", f"{name}_o1"]
        assert ids(await store.context(tenant, name)) == expected


async def test_an_id_is_taken_once(store: HistoryStore, tenant: str) -> None:
    await store.save(tenant, response("root"))
    tries = [store.save(tenant, response("same", "root", given=k + 1)) for k in range(6)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict"] * 5 + ["NoneType"]
    winner = next(index for index, outcome in enumerate(outcomes) if outcome is None)
    assert len((await store.get(tenant, "same")).input) == winner + 1
    with pytest.raises(Conflict):
        await store.save(tenant, response("same"))
    await store.delete(tenant, "same")
    await store.save(tenant, response("same", "root"))


async def test_what_is_not_there_is_not_found(store: HistoryStore, tenant: str) -> None:
    for unknown in ("resp_none", "nul\x00byte", "lone\ud800surrogate", "long" * 1000):
        with pytest.raises(NotFound):
            await store.get(tenant, unknown)
        with pytest.raises(NotFound):
            await store.context(tenant, unknown)
        with pytest.raises(NotFound):
            await store.delete(tenant, unknown)
        with pytest.raises(NotFound):
            await store.input_items(tenant, unknown, limit=1, order="asc", after=None)
        with pytest.raises(NotFound):
            await store.input_items(tenant, unknown, limit=1, order="asc", after="x")
        with pytest.raises(NotFound):
            await store.save(tenant, response("child", unknown))
        with pytest.raises(NotFound):
            await store.get(tenant, "child")


@pytest.mark.parametrize("bad", ["nul\x00byte", "lone\ud800surrogate", "é" * 600])
async def test_item_ids_no_database_can_hold_are_refused(store: HistoryStore, tenant: str, bad: str) -> None:
    saved = msgspec.structs.replace(response("r"), output=(StoredItem(bad, msgspec.Raw(b"{}")),))
    with pytest.raises(InvalidRequest) as caught:
        await store.save(tenant, saved)
    assert caught.value.param == "input"
    with pytest.raises(NotFound):
        await store.get(tenant, "r")


async def test_an_item_may_be_there_twice(store: HistoryStore, tenant: str) -> None:
    await store.save(tenant, response("a"))
    again = msgspec.structs.replace(response("b", "a"), input=(item("a_i0", "again"),))
    await store.save(tenant, again)
    found = await store.context(tenant, "b")
    assert ids(found) == ["a_i0", "a_o0", "a_o1", "a_i0", "b_o0", "b_o1"]
    assert b"hello" in bytes(found[0].raw)
    assert b"again" in bytes(found[3].raw)


# ── deleting ──────────────────────────────────────────────────────────────────


async def test_a_deleted_response_is_gone_and_its_children_keep_everything(store: HistoryStore, tenant: str) -> None:
    await build(store, tenant, {"a": None, "b": "a", "c": "b", "fork": "b"})
    before = {name: await store.context(tenant, name) for name in ("c", "fork")}
    for name in ("b", "a"):
        await store.delete(tenant, name)
        with pytest.raises(NotFound):
            await store.get(tenant, name)
        with pytest.raises(NotFound):
            await store.context(tenant, name)
        with pytest.raises(NotFound):
            await store.delete(tenant, name)
        with pytest.raises(NotFound):
            await store.save(tenant, response("late", name))
    assert {name: await store.context(tenant, name) for name in before} == before
    assert (await store.get(tenant, "c")).previous_id == "b"
    page = await store.input_items(tenant, "fork", limit=100, order="asc", after=None)
    assert ids(page.items) == [*ids(before["fork"])[:-2]]


@pytest.mark.parametrize("order", list(itertools.permutations(["a", "b", "left", "right"])))
async def test_any_order_of_deletes_keeps_what_is_left(
    store: HistoryStore, tenant: str, order: tuple[str, ...]
) -> None:
    tree: dict[str, str | None] = {"a": None, "b": "a", "left": "b", "right": "b"}
    await build(store, tenant, tree)
    contexts = {name: await store.context(tenant, name) for name in tree}
    for name in order:
        await store.delete(tenant, name)
        del contexts[name]
        for other, expected in contexts.items():
            assert await store.context(tenant, other) == expected


async def test_a_chain_goes_on_after_its_tip_was_deleted(store: HistoryStore, tenant: str) -> None:
    await build(store, tenant, {"a": None, "b": "a"})
    await store.delete(tenant, "b")
    await build(store, tenant, {"c": "a", "d": "a", "e": "c"})
    assert ids(await store.context(tenant, "e"))[3:] == ["c_i0", "c_o0", "c_o1", "e_i0", "e_o0", "e_o1"]
    assert ids(await store.context(tenant, "d"))[3:] == ["d_i0", "d_o0", "d_o1"]


# ── paging ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 8, 9, 100])
async def test_pages_are_the_whole_input_once(store: HistoryStore, tenant: str, order, limit: int) -> None:
    await build(store, tenant, {"a": None, "b": "a", "other": "a"})
    await store.save(tenant, response("c", "other", given=2))
    expected = ["a_i0", "a_o0", "a_o1", "other_i0", "other_o0", "other_o1", "c_i0", "c_i1"]
    if order == "desc":
        expected.reverse()
    seen: list[str] = []
    after = None
    while True:
        page = await store.input_items(tenant, "c", limit=limit, order=order, after=after)
        seen += ids(page.items)
        assert len(page.items) == min(limit, len(expected) - len(seen) + len(page.items))
        assert page.has_more == (len(seen) < len(expected))
        if not page.has_more:
            break
        after = page.items[-1].id
    assert seen == expected


async def test_paging_after_the_last_item_is_an_empty_page(store: HistoryStore, tenant: str) -> None:
    await build(store, tenant, {"a": None})
    for order in ("asc", "desc"):
        page = await store.input_items(tenant, "a", limit=3, order=order, after="a_i0")
        assert (page.items, page.has_more) == ((), False)


async def test_after_must_be_one_of_the_input_items(store: HistoryStore, tenant: str) -> None:
    await build(store, tenant, {"a": None, "b": "a", "c": "b", "fork": "a"})
    for after in ("b_o0", "fork_i0", "c_i0", "none", "nul\x00", "\ud800"):
        with pytest.raises(InvalidRequest) as caught:
            await store.input_items(tenant, "b", limit=3, order="desc", after=after)
        assert caught.value.param == "after"


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_paging_over_repeated_ids_gets_to_its_end(store: HistoryStore, tenant: str, order) -> None:
    repeated = tuple(item(name) for name in ("x", "y", "x", "z", "y"))
    await store.save(tenant, msgspec.structs.replace(response("r"), input=repeated))
    after, pages = None, 0
    while pages < 6:
        page = await store.input_items(tenant, "r", limit=1, order=order, after=after)
        pages += 1
        if not page.has_more:
            break
        after = page.items[-1].id
    assert pages < 6


# ── tenants ───────────────────────────────────────────────────────────────────


async def test_another_tenants_id_looks_unknown(store: HistoryStore, tenant: str) -> None:
    await build(store, tenant, {"a": None, "b": "a"})
    other = f"{tenant}-other"
    with pytest.raises(NotFound):
        await store.get(other, "a")
    with pytest.raises(NotFound):
        await store.context(other, "a")
    with pytest.raises(NotFound):
        await store.input_items(other, "a", limit=1, order="asc", after=None)
    with pytest.raises(NotFound):
        await store.delete(other, "a")
    with pytest.raises(NotFound):
        await store.save(other, response("x", "a"))
    assert len(await store.context(tenant, "b")) == 6


async def test_tenants_may_use_the_same_ids(store: HistoryStore, tenant: str) -> None:
    other = f"{tenant}-other"
    await build(store, tenant, {"a": None, "b": "a"})
    await store.save(other, response("a", given=3, made=0))
    assert ids(await store.context(other, "a")) == ["a_i0", "a_i1", "a_i2"]
    with pytest.raises(InvalidRequest):
        await store.input_items(other, "a", limit=1, order="asc", after="a_o0")
    await store.delete(tenant, "a")
    await store.delete(tenant, "b")
    assert ids(await store.context(other, "a")) == ["a_i0", "a_i1", "a_i2"]
