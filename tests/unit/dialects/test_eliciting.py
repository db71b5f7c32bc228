"""What a tool asks its user: how it is told, and what the model is shown of it later."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from app.dialects.openai_responses.check import check_events
from app.dialects.openai_responses.context import NOT_ANSWERED, to_items
from app.dialects.openai_responses.eliciting import elicitation_answers, elicitation_labels
from app.dialects.openai_responses.wire import CreateResponse
from app.turn.errors import LocalProtocolError
from app.turn.events import CallTool, Elicited, ItemDone, Suspended, ToolReturned
from app.turn.ids import RandomIds
from app.turn.items import Question, StoredItem, ToolCall, ToolResult
from tests.unit.dialects.telling import Telling

BOTH = ("openai", "openresponses")
SCHEMA = '{"type":"object","properties":{"name":{"type":"string"}}}'
WHO = Question("Who?", SCHEMA, id="mcpe_1")
TERMS = Question("Read this.", url="https://x.example/", id="mcpe_1-2")


def call(call_id: str, **more: Any) -> ToolCall:
    return ToolCall(call_id, "book", '{"n":1}', server_label="hotel", tool="book", **more)


def begun(telling: Telling, *calls: ToolCall) -> None:
    for each in calls:
        telling.say(ItemDone(each), CallTool(each.call_id, "hotel", "book", each.arguments))


def elicited(call_id: str, *asked: Question) -> Elicited:
    return Elicited(call_id, asked[0].id, "hotel", "book", '{"n":1}', asked)


def stored(**item: Any) -> StoredItem:
    return StoredItem(item["id"], Raw(msgspec.json.encode(item)))


@pytest.mark.parametrize("profile", BOTH)
def test_a_question_is_an_item_and_its_call_has_ended(profile: str) -> None:
    telling = Telling(profile, ids=RandomIds())
    begun(telling, call("c1"))
    ended = telling.say(Suspended("c1"))
    assert [each["type"] for each in ended] == ["response.mcp_call.failed", "response.output_item.done"]
    asked = telling.say(elicited("c1", WHO, TERMS))
    assert [each["type"] for each in asked] == ["response.output_item.added", "response.output_item.done"] * 2
    telling.end()
    made, who, terms = telling.output
    assert (made["status"], made["output"], made["error"]["type"]) == ("failed", None, "mcp_protocol_error")
    shared = {
        "type": "mcp_elicitation_request",
        "server_label": "hotel",
        "name": "book",
        "arguments": '{"n":1}',
        "mcp_call_id": made["id"],
    }
    assert who == {
        "id": "mcpe_1",
        **shared,
        "mode": "form",
        "message": "Who?",
        "requested_schema": msgspec.json.decode(SCHEMA),
    }
    assert terms == {
        "id": "mcpe_1-2",
        **shared,
        "mode": "url",
        "message": "Read this.",
        "url": "https://x.example/",
    }
    assert check_events(telling.told, profile) == []


@pytest.mark.parametrize("profile", BOTH)
def test_no_question_waits_for_another_call(profile: str) -> None:
    telling = Telling(profile, ids=RandomIds())
    begun(telling, call("c1"), call("c2"), call("c3"))
    telling.say(Suspended("c2"), ToolReturned(ToolResult("c3", "done")), Suspended("c1"))
    one, two = Question("One?", "{}", id="mcpe_1"), Question("Two?", "{}", id="mcpe_2")
    telling.say(elicited("c1", one), elicited("c2", two))
    telling.end()
    assert check_events(telling.told, profile) == []
    assert [item.get("mcp_call_id") for item in telling.output[3:]] == [item["id"] for item in telling.output[:2]]


def test_what_the_loop_never_announced_asks_nothing() -> None:
    telling = Telling()
    with pytest.raises(LocalProtocolError, match="c1"):
        telling.say(Suspended("c1"))


def test_a_call_that_goes_on_says_from_where() -> None:
    telling = Telling(ids=RandomIds())
    begun(telling, call("mcpe_1", approval_id="mcpr_1", elicitation_id="mcpe_1"))
    telling.say(ToolReturned(ToolResult("mcpe_1", "done")))
    (made,) = telling.output
    assert (made["approval_request_id"], made["elicitation_request_id"]) == ("mcpr_1", "mcpe_1")
    (shown, _) = to_items(telling.encoder.output())
    assert isinstance(shown, ToolCall)
    assert (shown.approval_id, shown.elicitation_id) == ("mcpr_1", "mcpe_1")


def asked() -> tuple[StoredItem, ...]:
    telling = Telling(ids=RandomIds())
    begun(telling, call("c1"), call("c2"))
    telling.say(Suspended("c1"), ToolReturned(ToolResult("c2", "done")), elicited("c1", WHO, TERMS))
    return telling.encoder.output()


def test_a_call_that_was_never_answered_is_one_call_that_came_to_no_end() -> None:
    items = to_items(asked())
    assert [type(item) for item in items] == [ToolCall, ToolResult, ToolCall, ToolResult]
    results = [item.output for item in items if isinstance(item, ToolResult)]
    assert results == ["done", NOT_ANSWERED]


def test_a_call_that_goes_on_is_what_goes_on() -> None:
    assert [item.output for item in to_items(asked(), resumed={"mcpe_1"}) if isinstance(item, ToolResult)] == ["done"]
    went = stored(
        id="mcp_9",
        type="mcp_call",
        server_label="hotel",
        name="book",
        arguments='{"n":1}',
        output="booked",
        status="completed",
        elicitation_request_id="mcpe_1",
    )
    answer = stored(
        id="mcpea_1", type="mcp_elicitation_response", elicitation_request_id="mcpe_1", action="accept", content={}
    )
    items = to_items((*asked(), answer, went))
    assert [item.output for item in items if isinstance(item, ToolResult)] == ["done", "booked"]


def test_answers_are_those_that_no_item_of_the_models_follows() -> None:
    old, new = (
        {"id": f"x{n}", "type": "mcp_elicitation_response", "elicitation_request_id": f"mcpe_{n}", "action": "decline"}
        for n in (1, 2)
    )
    said = {"id": "m", "type": "message", "role": "assistant", "content": []}
    given = [old, said, new]
    request = CreateResponse(model="m", input=[Raw(msgspec.json.encode(each)) for each in given])
    (answer,) = elicitation_answers([stored(**each) for each in given], request)
    assert (answer.question_id, answer.action, bytes(answer.content), answer.path) == (
        "mcpe_2",
        "decline",
        b"null",
        "input[2]",
    )
    assert elicitation_answers([], CreateResponse(model="m", input="hi")) == ()


def test_the_server_that_asked_is_known_by_what_its_questions_share() -> None:
    assert elicitation_labels(asked()) == {"mcpe_1": "hotel"}
