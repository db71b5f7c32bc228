"""Prompts, request keys and the list of responses, in every store that keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from msgspec import structs

from app.db.engine import Database, with_driver
from app.history.conversations import SqlConversationStore
from app.history.listing import SqlResponseIndex
from app.history.memory_prompts import MemoryPromptStore
from app.history.prompts import SqlPromptStore
from app.history.request_keys import SqlRequestKeys
from app.history.retention import Retention
from app.history.run_statements import ADD_WAITING_RUN
from app.history.seal import Clear
from app.history.store import SqlHistoryStore
from app.responses.stores import Conversation, Filter, HeldKey, PromptStore
from app.turn.errors import InvalidRequest, NotFound
from app.turn.ids import RandomIds
from tests.contract.history.conftest import SETTINGS
from tests.contract.history.making import build, counting, counts, ids, item, response

# ── prompts ───────────────────────────────────────────────────────────────────


@pytest.fixture
async def prompts(any_url: str | None) -> AsyncIterator[PromptStore]:
    """Everything that claims to be a `PromptStore`."""
    if any_url is None:
        yield MemoryPromptStore()
        return
    database = Database(with_driver(any_url), SETTINGS)
    yield SqlPromptStore(database, Clear())
    await database.close()


async def test_a_prompt_has_versions(prompts: PromptStore, tenant: str) -> None:
    first = await prompts.create(tenant, "pmpt_1", b'{"n":1}', 5)
    assert (first.version, first.latest, first.created_at, bytes(first.body)) == (1, 1, 5, b'{"n":1}')
    second = await prompts.add_version(tenant, "pmpt_1", b'{"n":2}', 7)
    assert (second.version, second.latest, second.created_at, second.version_created_at) == (2, 2, 5, 7)
    assert await prompts.get(tenant, "pmpt_1") == second
    assert await prompts.get(tenant, "pmpt_1", 2) == second
    assert await prompts.get(tenant, "pmpt_1", 1) == structs.replace(first, latest=2)
    for version in (0, 3, -1):
        with pytest.raises(NotFound) as caught:
            await prompts.get(tenant, "pmpt_1", version)
        assert caught.value.code == "prompt_version_not_found"


async def test_versions_made_at_once_have_different_numbers(prompts: PromptStore, tenant: str) -> None:
    await prompts.create(tenant, "pmpt_1", b"{}", 5)
    made = await asyncio.gather(*(prompts.add_version(tenant, "pmpt_1", b'{"n":%d}' % n, 6) for n in range(8)))
    assert sorted(each.version for each in made) == list(range(2, 10))
    assert (await prompts.get(tenant, "pmpt_1")).version == 9


async def test_a_prompt_is_the_tenants_and_goes_with_its_versions(prompts: PromptStore, tenant: str) -> None:
    await prompts.create(tenant, "pmpt_1", b"{}", 5)
    other = f"{tenant}-other"
    for attempt in (
        prompts.get(other, "pmpt_1"),
        prompts.add_version(other, "pmpt_1", b"{}", 6),
        prompts.delete(other, "pmpt_1"),
    ):
        with pytest.raises(NotFound) as caught:
            await attempt
        assert caught.value.code == "prompt_not_found"
    await prompts.delete(tenant, "pmpt_1")
    with pytest.raises(NotFound):
        await prompts.get(tenant, "pmpt_1", 1)
    assert (await prompts.listed(tenant, limit=5, order="asc", after=None)).data == ()


async def test_prompts_are_listed_by_age_with_their_newest_version(prompts: PromptStore, tenant: str) -> None:
    for name, at in (("pmpt_b", 2), ("pmpt_a", 1), ("pmpt_c", 3)):
        await prompts.create(tenant, name, b"{}", at)
    await prompts.add_version(tenant, "pmpt_b", b'{"n":2}', 9)
    page = await prompts.listed(tenant, limit=2, order="desc", after=None)
    assert [(each.id, each.version) for each in page.data] == [("pmpt_c", 1), ("pmpt_b", 2)]
    assert page.has_more
    rest = await prompts.listed(tenant, limit=2, order="desc", after="pmpt_b")
    assert ([each.id for each in rest.data], rest.has_more) == (["pmpt_a"], False)
    with pytest.raises(InvalidRequest):
        await prompts.listed(tenant, limit=2, order="desc", after="nobody")


# ── request keys ──────────────────────────────────────────────────────────────


@pytest.fixture
def keys(database: Database) -> SqlRequestKeys:
    return SqlRequestKeys(database, Clear())


def wanted(response_id: str, at: int = 1000, digest: bytes = b"d") -> HeldKey:
    return HeldKey(key="k", digest=digest, response_id=response_id, begun=False, created_at=at)


async def hold(keys: SqlRequestKeys, tenant: str, asked: HeldKey) -> HeldKey:
    """As the use-case does: for a hundred seconds, and ten until it has begun."""
    at = asked.created_at
    return await keys.hold(tenant, asked, expires_at=at + 100, stale_before=at - 10)


async def test_a_key_is_held_once(keys: SqlRequestKeys, tenant: str) -> None:
    held = await asyncio.gather(*(hold(keys, tenant, wanted(f"resp_{n}")) for n in range(8)))
    (first,) = {each.response_id for each in held}
    again = await hold(keys, tenant, wanted("resp_x", digest=b"other"))
    assert (again.response_id, again.begun) == (first, False)
    assert again.digest != b"other"
    assert (await hold(keys, f"{tenant}-other", wanted("resp_y"))).response_id == "resp_y"


async def test_a_key_stands_for_what_begun_until_it_expires(keys: SqlRequestKeys, tenant: str) -> None:
    await hold(keys, tenant, wanted("resp_1"))
    await keys.begun(tenant, "k", "resp_1")
    await keys.release(tenant, "k", "resp_1")
    found = await hold(keys, tenant, wanted("resp_2", 1099))
    assert (found.response_id, found.begun, found.digest) == ("resp_1", True, b"d")
    assert (await hold(keys, tenant, wanted("resp_3", 1100))).response_id == "resp_3"


async def test_a_key_of_what_never_began_is_free(keys: SqlRequestKeys, tenant: str) -> None:
    await hold(keys, tenant, wanted("resp_1"))
    await keys.release(tenant, "k", "resp_other")
    assert (await hold(keys, tenant, wanted("resp_2"))).response_id == "resp_1"
    await keys.release(tenant, "k", "resp_1")
    assert (await hold(keys, tenant, wanted("resp_2"))).response_id == "resp_2"


async def test_a_key_whose_holder_is_gone_is_free_after_a_while(keys: SqlRequestKeys, tenant: str) -> None:
    await hold(keys, tenant, wanted("resp_1", 1000))
    assert (await hold(keys, tenant, wanted("resp_2", 1010))).response_id == "resp_1"
    assert (await hold(keys, tenant, wanted("resp_3", 1011))).response_id == "resp_3"


async def test_expired_keys_are_swept(keys: SqlRequestKeys, database: Database, tenant: str) -> None:
    await hold(keys, tenant, wanted("resp_1"))
    await keys.begun(tenant, "k", "resp_1")
    await keys.sweep(1099)
    assert (await hold(keys, tenant, wanted("resp_2"))).response_id == "resp_1"
    await keys.sweep(1100)
    assert (await hold(keys, tenant, wanted("resp_2"))).response_id == "resp_2"


# ── responses as a list ───────────────────────────────────────────────────────


async def test_responses_are_listed_by_age_with_their_output(
    sql_store: SqlHistoryStore, database: Database, tenant: str
) -> None:
    index = SqlResponseIndex(database, Clear())
    made = [("a", 1, "m", "completed"), ("b", 2, "n", "completed"), ("c", 2, "m", "failed"), ("d", 3, "m", "completed")]
    for name, at, model, status in made:
        each = structs.replace(response(name), created_at=at, model=model, status=status)
        await sql_store.save(tenant, each)
    async with counting(database) as seen:
        page = await index.listed(tenant, Filter(), limit=3, order="desc", after=None)
    assert len(seen) == 2
    assert ([each.id for each in page.data], page.has_more) == (["d", "c", "b"], True)
    assert ids(page.data[0].output) == ["d_o0", "d_o1"]
    assert msgspec.json.decode(page.data[0].snapshot)["id"] == "d"
    rest = await index.listed(tenant, Filter(), limit=3, order="desc", after="b")
    assert ([each.id for each in rest.data], rest.has_more) == (["a"], False)
    only = await index.listed(tenant, Filter(model="m", status="completed"), limit=9, order="asc", after=None)
    assert [each.id for each in only.data] == ["a", "d"]
    assert (await index.listed(f"{tenant}x", Filter(), limit=9, order="asc", after=None)).data == ()
    with pytest.raises(InvalidRequest):
        await index.listed(tenant, Filter(), limit=9, order="asc", after="nobody")


async def test_a_forks_output_is_its_own(sql_store: SqlHistoryStore, database: Database, tenant: str) -> None:
    await build(sql_store, tenant, {"a": None, "b": "a", "fork": "a"})
    page = await SqlResponseIndex(database, Clear()).listed(tenant, Filter(), limit=9, order="asc", after=None)
    assert {each.id: ids(each.output) for each in page.data} == {
        name: [f"{name}_o0", f"{name}_o1"] for name in ("a", "b", "fork")
    }


# ── locks, and the end of a tenant ────────────────────────────────────────────


async def test_while_a_response_is_made_nobody_changes_its_conversation(
    sql_store: SqlHistoryStore, database: Database, tenant: str
) -> None:
    talks = SqlConversationStore(database, RandomIds(), Clear())
    made = Conversation(id="conv_1", created_at=5, metadata={})
    await talks.create(tenant, made, [item("x")])
    run = {
        "tenant": tenant,
        "id": "resp_1",
        "owner": None,
        "fence": 0,
        "background": True,
        "cancelled": False,
        "created_at": 5,
        "conversation_id": "conv_1",
        "request": b"{}",
    }
    async with database.writing() as connection:
        await connection.run_sync(ADD_WAITING_RUN.run, run)
    for attempt in (
        talks.append(tenant, "conv_1", [item("y")]),
        talks.drop_item(tenant, "conv_1", "x"),
        talks.delete(tenant, "conv_1"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await attempt
        assert caught.value.code == "conversation_locked"
    await talks.update(tenant, "conv_1", {"a": "b"})
    assert ids((await talks.context(tenant, "conv_1")).items) == ["x"]


async def test_a_tenant_that_is_erased_leaves_nothing(
    sql_store: SqlHistoryStore, database: Database, keys: SqlRequestKeys, tenant: str
) -> None:
    talks = SqlConversationStore(database, RandomIds(), Clear())
    prompts = SqlPromptStore(database, Clear())
    await talks.create(tenant, Conversation(id="conv_1", created_at=5, metadata={}), [item("x")])
    await sql_store.save(tenant, structs.replace(response("a"), conversation_id="conv_1", joins=True))
    await prompts.create(tenant, "pmpt_1", b"{}", 5)
    await prompts.add_version(tenant, "pmpt_1", b"{}", 5)
    await hold(keys, tenant, wanted("resp_1"))
    await Retention(database, sql_store, Clear()).erase_tenant(tenant)
    assert await counts(database, tenant) == (0, 0, 0)
    assert (await talks.listed(tenant, limit=5, order="asc", after=None)).data == ()
    assert (await prompts.listed(tenant, limit=5, order="asc", after=None)).data == ()
    assert (await hold(keys, tenant, wanted("resp_2"))).response_id == "resp_2"
