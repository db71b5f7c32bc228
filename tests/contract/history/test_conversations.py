"""Conversations: what goes in comes out, in order; nothing of a response is lost with them, or they with a response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import monotonic

import pytest
from msgspec import Struct, structs

from app.db.engine import Database, with_driver
from app.history.conversations import SqlConversationStore
from app.history.memory import MemoryHistoryStore
from app.history.opened import OpenedContexts
from app.history.seal import Clear
from app.history.store import SqlHistoryStore
from app.responses.ports import HistoryStore, StoredResponse
from app.responses.stores import Conversation, ConversationStore, Order
from app.turn.errors import InvalidRequest, NotFound
from app.turn.ids import RandomIds
from tests.contract.history.conftest import SETTINGS
from tests.contract.history.making import counting, counts, ids, item, response


class Room(Struct):
    """Stores that belong together, and the database under them."""

    talks: ConversationStore
    history: HistoryStore
    database: Database | None
    tenant: str

    async def begin(self, name: str, *items: str, at: int = 5) -> None:
        """A conversation with these items."""
        made = Conversation(id=name, created_at=at, metadata={"name": name})
        await self.talks.create(self.tenant, made, [item(each) for each in items])

    async def say(self, name: str, conversation: str, *, joins: bool = True) -> StoredResponse:
        """A response in the conversation, as its client would have it made."""
        found = await self.talks.context(self.tenant, conversation)
        made = structs.replace(
            response(name), conversation_id=conversation, conversation_version=found.version, joins=joins
        )
        await self.history.save(self.tenant, made)
        return made

    async def held(self, conversation: str) -> list[str]:
        """The ids of its items."""
        return ids((await self.talks.context(self.tenant, conversation)).items)

    async def context(self, name: str) -> list[str]:
        """The ids of all items of a response."""
        return ids(await self.history.context(self.tenant, name))


@pytest.fixture
async def room(any_url: str | None, tenant: str) -> AsyncIterator[Room]:
    """Everything that claims to be a `ConversationStore`."""
    if any_url is None:
        memory = MemoryHistoryStore()
        yield Room(memory.conversations, memory, None, tenant)
        return
    database = Database(with_driver(any_url), SETTINGS)
    opened = OpenedContexts(2**20, 60.0, monotonic)
    talks = SqlConversationStore(database, RandomIds(), Clear(), opened)
    yield Room(talks, SqlHistoryStore(database, RandomIds(), Clear(), opened), database, tenant)
    await database.close()


A = ["a_i0", "a_o0", "a_o1"]
B = ["b_i0", "b_o0", "b_o1"]


async def test_a_conversation_comes_back_and_can_be_renamed(room: Room) -> None:
    await room.begin("conv_1", "x", "y")
    found = await room.talks.get(room.tenant, "conv_1")
    assert found == Conversation(id="conv_1", created_at=5, metadata={"name": "conv_1"})
    changed = await room.talks.update(room.tenant, "conv_1", {"n": "2"})
    assert changed == await room.talks.get(room.tenant, "conv_1")
    assert changed.metadata == {"n": "2"}
    assert await room.held("conv_1") == ["x", "y"]


async def test_an_empty_conversation_grows(room: Room) -> None:
    await room.begin("conv_1")
    assert await room.held("conv_1") == []
    await room.talks.append(room.tenant, "conv_1", [item("x")])
    await room.say("a", "conv_1")
    await room.talks.append(room.tenant, "conv_1", [item("y"), item("z")])
    await room.say("b", "conv_1")
    assert await room.held("conv_1") == ["x", *A, "y", "z", *B]
    assert await room.context("b") == ["x", *A, "y", "z", *B]
    assert await room.context("a") == ["x", *A]
    given = await room.history.input_items(room.tenant, "b", limit=100, order="asc", after=None)
    assert ids(given.items) == ["x", *A, "y", "z", "b_i0"]


async def test_a_response_that_does_not_join_builds_on_the_conversation_and_leaves_it(room: Room) -> None:
    await room.begin("conv_1", "x")
    await room.say("a", "conv_1", joins=False)
    assert await room.held("conv_1") == ["x"]
    await room.say("b", "conv_1")
    assert await room.held("conv_1") == ["x", *B]
    assert await room.context("a") == ["x", *A]


async def test_who_is_late_cannot_join(room: Room) -> None:
    await room.begin("conv_1", "x")
    late = structs.replace(response("late"), conversation_id="conv_1", joins=True)
    late = structs.replace(late, conversation_version=(await room.talks.context(room.tenant, "conv_1")).version)
    await room.talks.append(room.tenant, "conv_1", [item("y")])
    with pytest.raises(InvalidRequest) as caught:
        await room.history.save(room.tenant, late)
    assert (caught.value.code, caught.value.param) == ("conversation_locked", "conversation")
    assert await room.held("conv_1") == ["x", "y"]
    with pytest.raises(NotFound):
        await room.history.get(room.tenant, "late")


async def test_who_goes_on_from_a_response_leaves_the_conversation_alone(room: Room) -> None:
    await room.begin("conv_1", "x")
    await room.say("a", "conv_1")
    await room.history.save(room.tenant, response("branch", "a"))
    await room.say("b", "conv_1")
    assert await room.held("conv_1") == ["x", *A, *B]
    assert await room.context("branch") == ["x", *A, "branch_i0", "branch_o0", "branch_o1"]
    assert await room.context("b") == ["x", *A, *B]


async def test_items_are_paged_both_ways(room: Room) -> None:
    names = [f"i{n}" for n in range(7)]
    await room.begin("conv_1", *names)
    for order, whole in (("asc", names), ("desc", names[::-1])):
        found: list[str] = []
        more = True
        while more:
            page = await room.talks.items(
                room.tenant, "conv_1", limit=3, order=_order(order), after=found[-1] if found else None
            )
            found += ids(page.items)
            more = page.has_more
        assert found == whole
    with pytest.raises(InvalidRequest) as caught:
        await room.talks.items(room.tenant, "conv_1", limit=3, order="asc", after="nobody")
    assert caught.value.param == "after"
    assert (await room.talks.item(room.tenant, "conv_1", "i3")).id == "i3"
    with pytest.raises(NotFound):
        await room.talks.item(room.tenant, "conv_1", "i9")


@pytest.mark.parametrize("gone", ["x", "y", "a_i0", "a_o1", "b_o1"])
async def test_an_item_that_is_taken_out_stays_with_its_responses(room: Room, gone: str) -> None:
    await room.begin("conv_1", "x", "y")
    await room.say("a", "conv_1")
    await room.say("b", "conv_1")
    whole = ["x", "y", *A, *B]
    found = await room.talks.drop_item(room.tenant, "conv_1", gone)
    assert found.id == "conv_1"
    assert await room.held("conv_1") == [each for each in whole if each != gone]
    assert await room.context("b") == whole
    with pytest.raises(NotFound):
        await room.talks.item(room.tenant, "conv_1", gone)
    await room.say("c", "conv_1")
    left = [each for each in whole if each != gone]
    assert await room.context("c") == [*left, "c_i0", "c_o0", "c_o1"]
    second = left[2]
    await room.talks.drop_item(room.tenant, "conv_1", second)
    assert await room.held("conv_1") == [each for each in [*left, "c_i0", "c_o0", "c_o1"] if each != second]
    for each in await room.held("conv_1"):
        await room.talks.drop_item(room.tenant, "conv_1", each)
    assert await room.held("conv_1") == []
    await room.talks.append(room.tenant, "conv_1", [item("new")])
    assert await room.held("conv_1") == ["new"]


async def test_a_conversation_goes_without_its_responses_and_they_without_it(room: Room) -> None:
    await room.begin("conv_1", "x")
    await room.say("a", "conv_1")
    await room.talks.append(room.tenant, "conv_1", [item("y")])
    await room.history.delete(room.tenant, "a")
    assert await room.held("conv_1") == ["x", *A, "y"]
    await room.say("b", "conv_1")
    await room.talks.append(room.tenant, "conv_1", [item("z")])
    await room.talks.delete(room.tenant, "conv_1")
    assert await room.context("b") == ["x", *A, "y", *B]
    with pytest.raises(NotFound) as caught:
        await room.talks.get(room.tenant, "conv_1")
    assert caught.value.code == "conversation_not_found"
    await room.history.delete(room.tenant, "b")
    if room.database is not None:
        assert await counts(room.database, room.tenant) == (0, 0, 0)


async def test_everything_goes_in_the_end_whatever_was_taken_out(room: Room) -> None:
    await room.begin("conv_1", "x", "y", "z")
    await room.say("a", "conv_1")
    await room.talks.drop_item(room.tenant, "conv_1", "y")
    await room.history.save(room.tenant, response("branch", "a"))
    await room.talks.drop_item(room.tenant, "conv_1", "a_o0")
    await room.say("b", "conv_1")
    await room.history.delete(room.tenant, "a")
    await room.talks.delete(room.tenant, "conv_1")
    assert await room.context("branch") == ["x", "y", "z", *A, "branch_i0", "branch_o0", "branch_o1"]
    await room.history.delete(room.tenant, "branch")
    assert await room.context("b") == ["x", "z", "a_i0", "a_o1", *B]
    await room.history.delete(room.tenant, "b")
    if room.database is not None:
        assert await counts(room.database, room.tenant) == (0, 0, 0)


async def test_another_tenants_conversation_is_not_there(room: Room) -> None:
    await room.begin("conv_1", "x")
    other = f"{room.tenant}-other"
    talks = room.talks
    attempts = [
        talks.get(other, "conv_1"),
        talks.update(other, "conv_1", {}),
        talks.delete(other, "conv_1"),
        talks.context(other, "conv_1"),
        talks.append(other, "conv_1", [item("y")]),
        talks.items(other, "conv_1", limit=5, order="asc", after=None),
        talks.item(other, "conv_1", "x"),
        talks.drop_item(other, "conv_1", "x"),
        room.history.save(other, structs.replace(response("a"), conversation_id="conv_1", joins=True)),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound) as caught:
            await attempt
        assert caught.value.code == "conversation_not_found"
    assert (await talks.listed(other, limit=5, order="asc", after=None)).data == ()
    assert await room.held("conv_1") == ["x"]


async def test_conversations_are_listed_by_age(room: Room) -> None:
    for name, at in (("conv_b", 2), ("conv_a", 1), ("conv_d", 3), ("conv_c", 3)):
        await room.begin(name, at=at)
    pages: list[str] = []
    more = True
    while more:
        page = await room.talks.listed(room.tenant, limit=2, order="desc", after=pages[-1] if pages else None)
        pages += [each.id for each in page.data]
        more = page.has_more
    assert pages == ["conv_d", "conv_c", "conv_b", "conv_a"]
    oldest = await room.talks.listed(room.tenant, limit=3, order="asc", after=None)
    assert ([each.id for each in oldest.data], oldest.has_more) == (["conv_a", "conv_b", "conv_c"], True)
    with pytest.raises(InvalidRequest) as caught:
        await room.talks.listed(room.tenant, limit=3, order="asc", after="conv_x")
    assert caught.value.param == "after"


async def test_storage_grows_with_what_is_new_and_statements_do_not_grow(room: Room) -> None:
    if room.database is None:
        pytest.skip("there are no statements")
    await room.begin("conv_1")
    said: list[int] = []
    for turn in range(12):
        async with counting(room.database) as seen:
            await room.say(f"r{turn}", "conv_1")
            await room.talks.items(room.tenant, "conv_1", limit=5, order="desc", after=None)
        said.append(len(seen))
    assert set(said[1:]) == {said[1]}
    assert await counts(room.database, room.tenant) == (1, 36, 12)


def _order(order: str) -> Order:
    return "asc" if order == "asc" else "desc"
