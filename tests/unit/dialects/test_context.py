"""What was told and stored is what the model is shown next time: in its words, and in its order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from app.dialects.openai_responses.context import to_items
from app.turn.errors import Failure
from app.turn.events import Finish, ItemDone, TextDelta
from app.turn.ids import RandomIds
from app.turn.items import (
    Image,
    Message,
    Opaque,
    OpaquePart,
    Reasoning,
    Refusal,
    StoredItem,
    Text,
    ToolCall,
    ToolError,
    ToolListing,
    ToolResult,
    ToolSpec,
)
from tests.unit.dialects.telling import USAGE, Telling, answered, asked, called, listed, message

TWO_TEXTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
FAILED = Finish("failed", USAGE, failure=Failure(502, "upstream_error", "it broke"))


def stored(**item: Any) -> StoredItem:
    return StoredItem(item["id"], Raw(msgspec.json.encode(item)))


def test_what_the_model_said_is_what_it_is_shown() -> None:
    telling = Telling(ids=RandomIds(), include=["reasoning.encrypted_content"])
    said = [
        Reasoning("hm", ("thought",)),
        Message("assistant", (Text("so"), Refusal("no")), "commentary"),
        ToolCall("c1", "look", '{"a":1}'),
    ]
    telling.say(*map(ItemDone, said))
    assert list(to_items(telling.encoder.output())) == said


def test_the_calls_of_a_turn_are_shown_before_their_results() -> None:
    telling = Telling(ids=RandomIds())
    for turn in (["c1", "c2"], ["c1"]):
        telling.say(*[called(each) for each in turn], *[asked(each) for each in turn])
        telling.say(*[answered(each, f"result {each}") for each in reversed(turn)])
    telling.say(message("done"))
    items = to_items(telling.encoder.output())
    kinds = [type(item) for item in items]
    assert kinds == [ToolCall, ToolCall, ToolResult, ToolResult, ToolCall, ToolResult, Message]
    calls = [item.call_id for item in items if isinstance(item, ToolCall)]
    results = [item for item in items if isinstance(item, ToolResult)]
    assert [result.call_id for result in results] == calls
    assert [result.output for result in results] == ["result c1", "result c2", "result c1"]


@pytest.mark.parametrize(
    "error",
    [
        ToolError("mcp_protocol_error", "all that was said", -32602),
        ToolError("mcp_tool_execution_error", "all that was said"),
        ToolError("http_error", "all that was said", 502),
    ],
)
def test_a_failed_call_is_shown_as_it_was(error: ToolError) -> None:
    telling = Telling()
    telling.say(called("c1"), asked("c1"), answered("c1", "all that was said", error))
    call, result = to_items(telling.encoder.output())
    assert call == ToolCall("c1", "add", "{}", "demo", "add")
    assert result == ToolResult("c1", "all that was said", error)


def test_a_result_of_parts_is_shown_as_parts() -> None:
    telling = Telling()
    parts = (Text("a"), Image("http://x/y.png", "auto"))
    telling.say(called("c1"), asked("c1"), answered("c1", parts))
    assert to_items(telling.encoder.output())[1] == ToolResult("c1", parts)


def test_a_listing_is_known_again() -> None:
    telling = Telling()
    hint = Raw(b'{"readOnlyHint":true}')
    telling.say(*listed(ToolSpec("demo__add", Raw(b'{"type":"object"}'), "Adds.", annotations=hint, tool="add")))
    telling.say(*listed(label="dead", error=ToolError("http_error", "nobody there", 502)))
    alive, dead = to_items(telling.encoder.output())
    spec = ToolSpec("add", Raw(b'{"type":"object"}'), "Adds.", server_label="demo", tool="add", annotations=hint)
    assert alive == ToolListing("demo", (spec,))
    assert dead == ToolListing("dead", (), ToolError("mcp_protocol_error", "nobody there"))


def test_a_call_nobody_finished_is_not_shown() -> None:
    telling = Telling()
    telling.say(TextDelta("Hel"), called("c1"), called("c2"), asked("c2"))
    telling.end(FAILED)
    shown = to_items(telling.encoder.output())
    assert [type(item) for item in shown] == [Message, ToolCall, ToolResult]
    assert isinstance(shown[2], ToolResult)
    assert "unknown" in str(shown[2].output)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("it broke", "it broke"),
        ({"type": "mcp_tool_execution_error", "content": TWO_TEXTS}, "a\nb"),
        ({"type": "mcp_tool_execution_error", "content": "plain"}, "plain"),
        ({"type": "mcp_tool_execution_error", "content": {"a": 1}}, '{"a":1}'),
        ({"type": "http_error", "code": 500, "message": "m"}, "m"),
        ({"type": "mcp_protocol_error", "code": 1, "message": "m"}, "m"),
    ],
)
def test_errors_of_others_are_understood(error: object, text: str) -> None:
    item = stored(id="mcp_x", type="mcp_call", server_label="d", name="n", arguments="{}", error=error, status="failed")
    _, result = to_items([item])
    assert isinstance(result, ToolResult)
    assert result.error is not None
    assert result.output == text


def test_what_is_not_known_is_kept_as_it_is() -> None:
    raw = Raw(b'{"type":"acme:weather","id":"w"}')
    assert to_items([StoredItem("w", raw)]) == (Opaque("acme:weather", raw),)


A, B = Text("a"), Text("b")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("a", (A,)),
        ([], ()),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b", "annotations": []}], (A, B)),
        ([{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}], (A, Refusal("no"))),
        ([{"type": "input_image", "image_url": "data:x"}], (Image("data:x"),)),
        (
            [{"type": "input_text", "text": "a"}, {"type": "input_audio"}],
            (A, OpaquePart("input_audio", Raw(b'{"type":"input_audio"}'))),
        ),
    ],
)
def test_a_message_is_read_whatever_is_in_it(content: object, parts: tuple[object, ...]) -> None:
    more = {"role": "assistant", "phase": "commentary", "status": "completed"}
    items = to_items([stored(id="msg_1", type="message", content=content, **more)])
    assert items == (Message("assistant", parts, "commentary"),)
