"""How long what a request makes is kept, by the request's own word and within its tenant's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.dialects.openai_responses.desk import decode_new_conversation
from app.responses.conversations import Conversations
from app.turn.errors import InvalidRequest
from app.turn.ids import CountedIds
from tests.support.scripted import Scripted, calls, says

DAY = 86_400
MCP = {"type": "mcp", "server_label": "s", "server_url": "http://mcp.example/mcp"}


def after(seconds: int) -> dict[str, Any]:
    return {"anchor": "created_at", "seconds": seconds}


async def kept_until(world: Scripted, response_id: str) -> int | None:
    return (await world.history.get("t", response_id)).expires_at


async def test_a_response_is_kept_as_long_as_it_says_and_says_so() -> None:
    world = Scripted()
    got = await world.ask(says("hi"), input="hello", expires_after=after(60))
    assert got.body["expires_after"] == after(60)
    assert await kept_until(world, got.body["id"]) == 1060
    usual = await world.ask(says("hi"), input="hello")
    assert "expires_after" not in usual.body
    assert await kept_until(world, usual.body["id"]) == 1000 + 30 * DAY


async def test_the_time_counts_from_when_the_response_was_made() -> None:
    world = Scripted()
    world.tools.add("s", "wait")

    def waits(_arguments: str) -> str:
        world.clock.time += 500
        return "waited"

    world.tools.results["wait"] = waits
    got = await world.ask(calls(("wait", {})), says("hi"), input="x", tools=[MCP], expires_after=after(60))
    assert await kept_until(world, got.body["id"]) == 1060
    usual = await world.ask(calls(("wait", {})), says("hi"), input="x", tools=[MCP])
    assert await kept_until(world, usual.body["id"]) == 2000 + 30 * DAY


@pytest.mark.parametrize(("tenant", "longest"), [("t", 2 * DAY), ("brief", DAY // 2)])
async def test_nothing_is_kept_for_longer_than_the_tenant_keeps_anything(tenant: str, longest: int) -> None:
    world = Scripted(retention_days=2.0, tenant_retention_days={"brief": 0.5})
    await world.ask(says("hi"), input="hello", tenant=tenant, expires_after=after(longest))
    with pytest.raises(InvalidRequest) as refused:
        await world.ask(input="hello", tenant=tenant, expires_after=after(longest + 1))
    assert (refused.value.param, refused.value.code) == ("expires_after.seconds", "integer_above_max_value")
    assert str(longest) in refused.value.message


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"anchor": "created_at"}, "expires_after.seconds"),
        ({"seconds": 5}, "expires_after.anchor"),
        ({"anchor": "last_active_at", "seconds": 5}, "expires_after.anchor"),
        (after(0), "expires_after.seconds"),
        ({"anchor": "created_at", "seconds": "60"}, "expires_after.seconds"),
        (60, "expires_after"),
    ],
)
async def test_what_is_wrong_with_it_is_named(given: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await Scripted().ask(input="hello", expires_after=given)
    assert refused.value.param == param
    with pytest.raises(InvalidRequest) as refused:
        decode_new_conversation(msgspec.json.encode({"expires_after": given}))
    assert refused.value.param == param


async def test_an_approval_does_not_outlive_its_response() -> None:
    world = Scripted()
    world.tools.add("s", "add", ask=True)
    asked = await world.ask(calls(("add", {})), input="go", tools=[MCP], expires_after=after(60))
    (item,) = [each for each in asked.output if each["type"] == "mcp_approval_request"]
    answer = {"type": "mcp_approval_response", "approval_request_id": item["id"], "approve": True}
    world.clock.time = 1060
    with pytest.raises(InvalidRequest) as refused:
        await world.ask(input=[answer], tools=[MCP], previous_response_id=asked.body["id"])
    assert refused.value.code == "approval_expired"


async def test_a_response_does_not_outlive_the_conversation_it_was_made_in() -> None:
    world = Scripted()
    talks = Conversations(world.history.conversations, world.history, world.sealer, CountedIds(), world.clock.now)
    asked = decode_new_conversation(msgspec.json.encode({"expires_after": after(100)}))
    made = await talks.create("t", asked)
    assert made.expires_at == 1100
    got = await world.ask(says("hi"), input="hello", conversation=made.id)
    assert await kept_until(world, got.body["id"]) == 1100
    sooner = await world.ask(says("hi"), input="hello", conversation=made.id, expires_after=after(50))
    assert await kept_until(world, sooner.body["id"]) == 1050
