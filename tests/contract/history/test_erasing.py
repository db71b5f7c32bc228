"""What one of a tenant's users said is nowhere once it is erased, however long others go on building on it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from msgspec import Struct, structs

from app.db.engine import Database, with_driver
from app.history import tables
from app.history.blanking import blank
from app.history.conversations import SqlConversationStore
from app.history.desk_tables import request_keys
from app.history.keyring import Keyring, Master
from app.history.opened import OpenedContexts
from app.history.request_keys import SqlRequestKeys
from app.history.retention import Retention
from app.history.seal import Clear, Sealer
from app.history.store import SqlHistoryStore
from app.mcp.tables import approvals, credentials
from app.responses.ports import StoredItem, StoredResponse
from app.responses.stores import Conversation, HeldKey
from app.turn.errors import NotFound
from app.turn.ids import RandomIds
from tests.contract.history.conftest import SETTINGS
from tests.contract.history.making import counts, ids, item, response

SECRET = "the blue heron nests at dawn"


class Room(Struct):
    """Stores that belong together."""

    database: Database
    store: SqlHistoryStore
    talks: SqlConversationStore
    keys: SqlRequestKeys
    retention: Retention
    tenant: str

    async def say(self, name: str, user: str | None, text: str, **where: str) -> StoredResponse:
        """A response of the user's, in a conversation or after another response."""
        made = structs.replace(
            response(name, where.get("after")),
            conversation_id=where.get("conversation"),
            joins="conversation" in where,
            end_user=user,
            input=(item(f"{name}_i", text),),
            output=(item(f"{name}_o", f"you said {text}"),),
        )
        await self.store.save(self.tenant, made)
        return made

    async def said(self, conversation: str) -> str:
        """All of a conversation."""
        found = await self.talks.context(self.tenant, conversation)
        return " ".join(bytes(each.raw).decode() for each in found.items)

    async def everything(self) -> bytes:
        """Every value in every table, as the database gives it out."""
        found: list[str] = []
        async with self.database.reading() as connection:
            for table in tables.chains.metadata.sorted_tables:
                found += [repr(tuple(row)) for row in await connection.execute(sa.select(table))]
        return "\n".join(found).encode()


@pytest.fixture(params=["clear", "sealed"])
def sealer(request: pytest.FixtureRequest, database: Database) -> Sealer:
    """Content as it is shows what is left of it; sealed is how it is."""
    return Clear() if request.param == "clear" else Keyring(database, [Master(os.urandom(32))], time.monotonic)


@pytest.fixture
def room(database: Database, sealer: Sealer, tenant: str) -> Room:
    opened = OpenedContexts(10**6, 60.0, time.monotonic)
    store = SqlHistoryStore(database, RandomIds(), sealer, opened)
    talks = SqlConversationStore(database, RandomIds(), sealer, opened)
    retention = Retention(database, store, sealer, (approvals, credentials))
    return Room(database, store, talks, SqlRequestKeys(database, sealer), retention, tenant)


async def _begin(room: Room) -> None:
    await room.talks.create(room.tenant, Conversation(id="conv", created_at=1, metadata={}), [item("first", "hello")])


async def test_a_conversation_keeps_what_others_said(room: Room) -> None:
    await _begin(room)
    await room.say("a", "ann", SECRET, conversation="conv")
    await room.say("b", "bob", "rain tomorrow", conversation="conv")
    assert SECRET in await room.said("conv")
    assert await room.retention.erase_user(room.tenant, "ann") == 1
    said = await room.said("conv")
    assert SECRET not in said
    assert "hello" in said
    assert "you said rain tomorrow" in said
    found = await room.talks.context(room.tenant, "conv")
    assert ids(found.items) == ["first", "a_i", "a_o", "b_i", "b_o"]
    assert SECRET.encode() not in await room.everything()
    # And bob's own response, whose context it was.
    context = await room.store.context(room.tenant, "b")
    assert SECRET not in " ".join(bytes(each.raw).decode() for each in context)
    with pytest.raises(NotFound):
        await room.store.get(room.tenant, "a")


async def test_what_outlived_its_response_is_found_too(room: Room) -> None:
    await _begin(room)
    await room.say("a", "ann", SECRET, conversation="conv")
    await room.store.delete(room.tenant, "a")
    assert SECRET in await room.said("conv")
    await room.retention.erase_user(room.tenant, "ann")
    assert SECRET not in await room.said("conv")
    assert SECRET.encode() not in await room.everything()


async def test_what_was_written_again_is_still_its_user_s(room: Room) -> None:
    await _begin(room)
    await room.say("a", "ann", SECRET, conversation="conv")
    await room.say("b", "bob", "rain tomorrow", conversation="conv")
    # Everything after the item is written again, on another chain.
    await room.talks.drop_item(room.tenant, "conv", "first")
    await room.retention.erase_user(room.tenant, "ann")
    said = await room.said("conv")
    assert SECRET not in said
    assert "rain tomorrow" in said
    assert SECRET.encode() not in await room.everything()
    await room.retention.erase_user(room.tenant, "bob")
    assert "rain tomorrow" not in await room.said("conv")


async def test_a_response_of_another_user_that_builds_on_it_keeps_its_place(room: Room) -> None:
    await room.say("a", "ann", SECRET)
    await room.say("b", "bob", "rain tomorrow", after="a")
    await room.say("alone", "ann", SECRET)
    assert await room.retention.erase_user(room.tenant, "ann") == 2
    assert SECRET.encode() not in await room.everything()
    assert ids(await room.store.context(room.tenant, "b")) == ["a_i", "a_o", "b_i", "b_o"]
    # What nobody builds on goes altogether.
    assert await counts(room.database, room.tenant) == (1, 4, 1)


async def test_what_it_left_elsewhere_goes_with_it(room: Room) -> None:
    for name, user in (("a", "ann"), ("b", "bob")):
        await room.say(name, user, "x")
        key = HeldKey(key=f"key-{name}", digest=b"d", response_id=name, begun=True, created_at=1)
        await room.keys.hold(room.tenant, key, expires_at=2**40, stale_before=0)
        entry = {"tenant": room.tenant, "response_id": name, "position": 0, "sequence_number": 0, "body": b"log"}
        asked = {
            "tenant": room.tenant, "id": f"ask-{name}", "principal": "p", "response_id": name, "server_label": "s",
            "tool": "t", "arguments": b"args", "arguments_digest": "d", "place": "p", "definition": "d", "policy": "1",
            "created_at": 1.0, "expires_at": 2.0, "second_person": False,
        }  # fmt: skip
        async with room.database.writing() as connection:
            await connection.execute(sa.insert(tables.entries), entry)
            await connection.execute(sa.insert(approvals), asked)
    await room.retention.erase_user(room.tenant, "ann")
    async with room.database.reading() as connection:
        for table in (request_keys, tables.entries, approvals):
            left = await connection.execute(sa.select(table.c.response_id).where(table.c.tenant == room.tenant))
            assert [row.response_id for row in left] == ["b"]


async def test_another_tenant_s_user_of_that_name_is_somebody_else(room: Room) -> None:
    other = structs.replace(room, tenant=f"{room.tenant}-2")
    await room.say("a", "ann", SECRET)
    await other.say("a", "ann", "kept")
    await room.retention.erase_user(room.tenant, "ann")
    assert len(await other.store.context(other.tenant, "a")) == 2


async def test_the_files_of_sqlite_hold_nothing_of_it(sqlite_path: Path, tenant: str) -> None:
    database = Database(with_driver(f"sqlite:///{sqlite_path}"), SETTINGS)
    store = SqlHistoryStore(database, RandomIds(), Clear())
    talks = SqlConversationStore(database, RandomIds(), Clear())
    retention = Retention(database, store, Clear())
    room = Room(database, store, talks, SqlRequestKeys(database, Clear()), retention, tenant)
    await _begin(room)
    for k in range(30):
        await room.say(f"a{k}", "ann", f"{SECRET} {k}", conversation="conv")
        await room.say(f"b{k}", "bob", "rain", conversation="conv")
    assert SECRET.encode() in _raw(sqlite_path)
    await room.retention.erase_user(tenant, "ann")
    assert SECRET.encode() not in _raw(sqlite_path)
    assert b"you said rain" in _raw(sqlite_path)
    await database.close()
    assert SECRET.encode() not in _raw(sqlite_path)


def _raw(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in path.parent.glob("history.db*"))


@pytest.mark.parametrize(
    ("was", "says"),
    [
        ({"type": "message", "role": "user", "content": "s3cret"}, "[erased]"),
        ({"role": "user", "content": [{"type": "input_text", "text": "s3cret"}]}, "[erased]"),
        ({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "s3cret"}]}, "[erased]"),
        ({"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x":"s3cret"}'}, "c1"),
        ({"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": "s3cret"}, "c1"),
        ({"type": "function_call_output", "call_id": "c1", "output": "s3cret"}, "c1"),
        ({"type": "function_call_output", "call_id": "c1", "output": [{"type": "x", "text": "s3cret"}]}, "c1"),
        ({"type": "mcp_call", "name": "f", "arguments": "s3cret", "output": "s3cret"}, "[erased]"),
        ({"type": "reasoning", "summary": [], "encrypted_content": "s3cret"}, "[erased]"),
    ],
)
def test_a_blank_item_keeps_its_id_and_what_ties_it_to_others(was: dict[str, object], says: str) -> None:
    raw = json.dumps({"id": "it_1", **was}).encode()
    made = blank(StoredItem("it_1", msgspec.Raw(raw)))
    assert made.id == "it_1"
    assert b"s3cret" not in bytes(made.raw)
    assert says.encode() in bytes(made.raw)
    assert json.loads(bytes(made.raw))["id"] == "it_1"
