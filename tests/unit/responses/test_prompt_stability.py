"""A chain is told to the engine as it was before, byte for byte: its prefix cache holds exactly as far as that."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.dialects.openai_chat.call import Quirks, encode_request
from app.turn.events import ItemDone, TextDelta, TurnEvent
from app.turn.items import Message, Text
from app.turn.request import TurnRequest
from tests.support.scripted import Scripted, calls, says, thinks

LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
MCP = {"type": "mcp", "server_label": "calc", "server_url": "http://mcp.example/mcp", "require_approval": "never"}
SEARCH = {"type": "web_search"}
TOOLS = [LOOK, MCP, SEARCH]


def world() -> Scripted:
    made = Scripted()
    made.tools.add("calc", "add", "sub")
    made.tools.roles = {"web_search"}
    made.tools.add("role:web_search", "search")
    return made


def told(request: TurnRequest) -> dict[str, Any]:
    """What the engine reads of a turn, in order: the tools, then the messages."""
    body = msgspec.json.decode(encode_request(request, "m", Quirks()))
    return {"tools": body.get("tools"), "messages": [msgspec.json.encode(each) for each in body["messages"]]}


def assert_grows(made: Scripted, before: dict[str, Any]) -> dict[str, Any]:
    """Every turn since begins with what the one before it was told, and says which came last."""
    for request in made.model.asked:
        after = told(request)
        assert after["tools"] == before["tools"]
        assert after["messages"][: len(before["messages"])] == before["messages"]
        before = after
    return before


def remarks(text: str) -> list[TurnEvent]:
    """A text that is followed by more."""
    return [TextDelta(text), ItemDone(Message("assistant", (Text(text),)))]


TURNS: dict[str, list[TurnEvent]] = {
    "one call": calls(("add", {"a": 1})),
    "several calls": calls(("add", {"a": 1}), ("sub", {"b": 2}), ("add", {"a": 3})),
    "calls of several servers": calls(("add", {"a": 1}), ("web_search", {"query": "sheep"}), ("sub", {})),
    "a remark and calls": [*remarks("Let me see."), *calls(("add", {"a": 1}), ("sub", {}))],
    "a thought and calls": [*thinks("hm"), *calls(("add", {"a": 1}), ("sub", {}))],
    "spacious arguments": calls(("add", ' { "a" : 1 } '), ("sub", "")),
    "arguments that are none": calls(("add", "[1]"), ("sub", "{}")),
    "a hosted tool": calls(("web_search", {"query": "sheep"}), ("web_search", {"query": "goats"})),
}


@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS.keys())
async def test_a_loop_is_told_again_as_it_was(turn: list[TurnEvent]) -> None:
    made = world()
    got = await made.ask(turn, turn, says("Done."), input="go", tools=TOOLS)
    before = assert_grows(made, told(made.model.asked[0]))
    got = await made.ask(turn, says("Yes."), input="And?", tools=TOOLS, previous_response_id=got.body["id"])
    before = assert_grows(made, before)
    await made.ask(says("No."), input="Really?", tools=TOOLS, previous_response_id=got.body["id"])
    assert_grows(made, before)


async def test_a_call_for_the_client_beside_calls_of_the_gateways() -> None:
    made = world()
    turn = calls(("add", {"a": 1}), ("look", {}), ("sub", {}))
    got = await made.ask(turn, input="go", tools=TOOLS)
    output = {"type": "function_call_output", "call_id": "call_2", "output": "a sheep"}
    before = told(made.last)
    chain = {"tools": TOOLS, "previous_response_id": got.body["id"]}
    got = await made.ask(calls(("add", {})), says("Done."), input=[output], **chain)
    before = assert_grows(made, before)
    (turn,) = [msgspec.json.decode(each) for each in before["messages"] if b'"sub"' in each]
    assert [call["function"]["name"] for call in turn["tool_calls"]] == ["add", "look", "sub"]
    await made.ask(says("Yes."), input="And?", tools=TOOLS, previous_response_id=got.body["id"])
    assert_grows(made, before)


async def test_a_conversation_that_its_client_carries() -> None:
    made = world()
    turn = [*thinks("hm"), *calls(("add", {"a": 1}), ("web_search", {"query": "sheep"}))]
    asked: list[Any] = [{"role": "user", "content": "go"}]
    include = ["reasoning.encrypted_content"]
    got = await made.ask(turn, says("Done."), input=asked, tools=TOOLS, store=False, include=include)
    before = assert_grows(made, told(made.model.asked[0]))
    asked += [*got.output, {"role": "user", "content": "And?"}]
    await made.ask(says("Yes."), input=asked, tools=TOOLS, store=False, include=include)
    assert_grows(made, before)
