"""What a client is told: each kind of item, the calls of a turn beside each other, and every way to end."""

from __future__ import annotations

import re

import pytest
from msgspec import Raw

from app.dialects.openai_responses.check import check_events
from app.dialects.openai_responses.encode import DONE, Event, frame
from app.dialects.openai_responses.output_calls import LISTING_CUT, OUTCOME_UNKNOWN
from app.turn.errors import Failure, LocalProtocolError
from app.turn.events import CallDelta, Finish, ItemDone, ReasoningDelta, RefusalDelta, TextDelta, ToolsListed, TurnCut
from app.turn.ids import RandomIds
from app.turn.items import Image, Opaque, Reasoning, Refusal, Text, ToolCall, ToolError, ToolResult, ToolSpec
from app.turn.usage import Usage
from tests.unit.dialects.telling import (
    NOW,
    USAGE,
    Telling,
    answered,
    asked,
    called,
    delta,
    kinds,
    listed,
    message,
)

PROFILES = ("openai", "openresponses")
FAILED = Finish("failed", USAGE, failure=Failure(502, "upstream_error", "it broke"))
CUT = Finish("incomplete", USAGE, "max_output_tokens")
CANCELLED = Finish("cancelled", USAGE)
READS = Raw(b'{"readOnlyHint":true}')
TEXT = "what the model is told"


@pytest.fixture(params=PROFILES)
def telling(request: pytest.FixtureRequest) -> Telling:
    return Telling(request.param)


# ── the response ──────────────────────────────────────────────────────────────


def test_it_begins_and_ends() -> None:
    telling = Telling()
    created, in_progress = telling.told
    assert (created["type"], in_progress["type"]) == ("response.created", "response.in_progress")
    assert created["response"] == in_progress["response"] == telling.body
    begun = telling.body
    assert (begun["status"], begun["output"], begun["usage"], begun["completed_at"]) == ("in_progress", [], None, None)
    (last,) = telling.end()
    assert last["type"] == "response.completed"
    assert last["response"] == telling.body
    ended = telling.body
    assert (ended["status"], ended["created_at"], ended["completed_at"]) == ("completed", NOW, NOW + 5)
    assert ended["usage"] == {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 35,
    }
    assert {key for key in begun if begun[key] != ended[key]} == {"status", "completed_at", "usage"}


def test_an_incomplete_response_says_why() -> None:
    telling = Telling()
    (last,) = telling.end(CUT)
    assert last["type"] == "response.incomplete"
    assert telling.body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert telling.body["completed_at"] is None


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure(502, "upstream_error", "x"), "upstream_error"),
        (Failure(500, None, "x"), "server_error"),
        (Failure(400, None, "x"), "invalid_prompt"),
    ],
)
def test_a_failed_response_says_why(failure: Failure, code: str) -> None:
    telling = Telling()
    (last,) = telling.end(Finish("failed", Usage(), failure=failure))
    assert last["type"] == "response.failed"
    assert telling.body["error"] == {"code": code, "message": "x"}
    assert telling.body["usage"] is None


def test_what_a_failed_response_cost_is_said() -> None:
    telling = Telling()
    telling.end(FAILED)
    assert telling.body["usage"]["total_tokens"] == 35


def test_a_cancelled_response_has_no_last_event() -> None:
    telling = Telling()
    telling.say(TextDelta("Hel"))
    assert kinds(telling.end(CANCELLED)) == ["output_text.done", "content_part.done", "output_item.done"]
    assert telling.body["status"] == "cancelled"
    assert check_events(telling.told, cancelled=True) == []


def test_the_last_end_counts() -> None:
    telling = Telling()
    telling.encoder.settle(Finish("completed", USAGE), NOW)
    telling.encoder.settle(FAILED, NOW)
    assert telling.body["status"] == "failed"
    assert telling.body["completed_at"] is None


def test_frames() -> None:
    assert frame(Event(0, "response.x", b'{"a":1}')) == b'event: response.x\ndata: {"a":1}\n\n'
    assert DONE == b"data: [DONE]\n\n"


# ── messages ──────────────────────────────────────────────────────────────────


def test_a_message(telling: Telling) -> None:
    told = telling.say(TextDelta("Hel"), TextDelta("lo"), message("Hello"))
    assert kinds(told) == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    item = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    assert told[0]["item"] == item
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    assert told[1] == {
        "type": "response.content_part.added",
        "sequence_number": 3,
        **place,
        "part": {**part, "text": ""},
    }
    assert told[2] == {
        "type": "response.output_text.delta",
        "sequence_number": 4,
        **place,
        "delta": "Hel",
        "logprobs": [],
    }
    assert told[4] == {
        "type": "response.output_text.done",
        "sequence_number": 6,
        **place,
        "text": "Hello",
        "logprobs": [],
    }
    assert told[6]["item"] == {**item, "status": "completed", "content": [part]}
    telling.end()
    assert check_events(telling.told) == []


def test_a_refusal_after_text_is_a_part_of_its_own(telling: Telling) -> None:
    telling.say(TextDelta("Well"), RefusalDelta("no"), message("Well", Refusal("no, thanks")))
    telling.end()
    parts = [(part["type"], part.get("text", part.get("refusal"))) for part in telling.output[0]["content"]]
    assert parts == [("output_text", "Well"), ("refusal", "no, thanks")]
    assert check_events(telling.told) == []


@pytest.mark.parametrize(
    ("said", "whole", "deltas"),
    [
        (["Hel"], "Hello", ["Hel", "lo"]),
        ([], "Hello", ["Hello"]),
        (["Hello"], "Bye", ["Hello"]),
        (["Hello", " you"], "Hello", ["Hello", " you"]),
        ([], "", []),
        (["", "a", ""], "a", ["a"]),
    ],
)
def test_the_whole_completes_the_deltas_and_takes_nothing_back(said: list[str], whole: str, deltas: list[str]) -> None:
    telling = Telling()
    told = telling.say(*map(TextDelta, said), message(whole))
    assert [event["delta"] for event in told if event["type"].endswith("delta")] == deltas
    assert telling.output[0]["content"][0]["text"] == "".join(deltas)
    telling.end()
    assert check_events(telling.told) == []


def test_parts_no_delta_spoke_of_are_told_too(telling: Telling) -> None:
    telling.say(TextDelta("one"), message("one", Refusal("two"), Image("http://x/y.png"), "three"))
    telling.end()
    assert [part["type"] for part in telling.output[0]["content"]] == [
        "output_text",
        "refusal",
        "input_image",
        "output_text",
    ]
    assert check_events(telling.told) == []


def test_an_empty_message_is_an_item(telling: Telling) -> None:
    assert kinds(telling.say(message())) == ["output_item.added", "output_item.done"]
    telling.end()
    assert check_events(telling.told) == []


def test_the_phase_is_there_when_it_is_known_and_never_null() -> None:
    telling = Telling()
    telling.say(message("a", phase="commentary"), message("b"))
    assert telling.output[0]["phase"] == "commentary"
    assert "phase" not in telling.output[1]


def test_logprobs_are_passed_on_and_gathered() -> None:
    telling = Telling()
    one, two = (f'{{"token":"{token}",\n "logprob":-1,"bytes":[1],"top_logprobs":[]}}' for token in "ab")
    told = telling.say(
        TextDelta("a", Raw(f"[{one}]".encode())),
        TextDelta("", Raw(b"[ ]")),
        TextDelta("b", Raw(f" [{two}]".encode())),
        message("ab"),
    )
    tokens = [[each["token"] for each in event["logprobs"]] for event in told if "logprobs" in event]
    assert tokens == [["a"], [], ["b"], ["a", "b"]]
    assert [each["token"] for each in telling.output[0]["content"][0]["logprobs"]] == ["a", "b"]
    telling.end()
    assert check_events(telling.told) == []


def test_two_messages_of_one_turn_are_two_items(telling: Telling) -> None:
    telling.say(TextDelta("a"), message("a"), TextDelta("b"), message("b"))
    telling.end()
    assert [item["id"] for item in telling.output] == ["msg_1", "msg_2"]
    assert check_events(telling.told) == []


# ── reasoning ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("profile", "name"), [("openai", "reasoning_text"), ("openresponses", "reasoning")])
def test_reasoning(profile: str, name: str) -> None:
    telling = Telling(profile, include=["reasoning.encrypted_content"])
    told = telling.say(ReasoningDelta("One, "), ItemDone(Reasoning("One, two.", ("Sheep.", "More."))))
    summary = [
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
    ]
    assert kinds(told) == [
        "output_item.added",
        "content_part.added",
        f"{name}.delta",
        f"{name}.delta",
        f"{name}.done",
        "content_part.done",
        *summary,
        *summary,
        "output_item.done",
    ]
    assert telling.output[0] == {
        "id": "rs_1",
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": "Sheep."}, {"type": "summary_text", "text": "More."}],
        "content": [{"type": "reasoning_text", "text": "One, two."}],
    }
    telling.end()
    assert check_events(telling.told, profile) == []


def test_reasoning_nobody_may_read_has_no_content() -> None:
    telling = Telling(include=["reasoning.encrypted_content"])
    assert kinds(telling.say(ItemDone(Reasoning(encrypted="sealed")))) == ["output_item.added", "output_item.done"]
    assert telling.output[0]["encrypted_content"] == "sealed"
    assert "content" not in telling.output[0]


def test_text_may_begin_before_the_reasoning_has_ended(telling: Telling) -> None:
    told = telling.say(
        ReasoningDelta("a"), TextDelta("b"), ReasoningDelta("a"), message("b"), ItemDone(Reasoning("aa"))
    )
    done = [event for event in told if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in done] == [0, 1]
    assert [item["type"] for item in telling.output] == ["reasoning", "message"]
    telling.end()
    assert check_events(telling.told) == []


# ── function calls ────────────────────────────────────────────────────────────


def test_a_call_of_the_clients(telling: Telling) -> None:
    told = telling.say(
        CallDelta("c1", "look", ""), CallDelta("c1", "look", '{"a"'), ItemDone(ToolCall("c1", "look", '{"a":1}'))
    )
    assert kinds(told) == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    item = {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "look"}
    assert told[0]["item"] == {**item, "status": "in_progress", "arguments": ""}
    assert telling.output == [{**item, "status": "completed", "arguments": '{"a":1}'}]
    telling.end()
    assert check_events(telling.told) == []


def test_a_call_that_is_said_at_once_is_told_in_pieces_too(telling: Telling) -> None:
    told = telling.say(ItemDone(ToolCall("c1", "look", "{}")))
    assert [event["delta"] for event in told if "delta" in event] == ["{}"]
    telling.end()
    assert check_events(telling.told) == []


def test_nothing_follows_the_end_of_a_call(telling: Telling) -> None:
    telling.say(ItemDone(ToolCall("c1", "look", "{}")), *[called("c2")])
    assert telling.say(CallDelta("c1", "look", "x"), delta("c2", "x")) == []


@pytest.mark.parametrize("finish", [CUT, FAILED, CANCELLED])
def test_a_call_that_was_cut_off_is_nothing_to_execute(telling: Telling, finish: Finish) -> None:
    telling.say(CallDelta("c1", "look", '{"a'))
    telling.end(finish)
    assert (telling.output[0]["status"], telling.output[0]["arguments"]) == ("incomplete", '{"a')
    assert check_events(telling.told, cancelled=finish is CANCELLED) == []


def test_a_call_whose_end_never_came_is_not_complete_because_the_response_is() -> None:
    telling = Telling()
    telling.say(CallDelta("c1", "look", "{}"))
    telling.end()
    assert telling.output[0]["status"] == "incomplete"


# ── MCP ───────────────────────────────────────────────────────────────────────


def test_a_listing(telling: Telling) -> None:
    told = telling.say(
        *listed(
            ToolSpec("demo__add", Raw(b'{"type":"object"}'), "Adds.", annotations=READS, tool="add"),
            ToolSpec("time", Raw(b"{}")),
        )
    )
    assert kinds(told) == [
        "output_item.added",
        "mcp_list_tools.in_progress",
        "mcp_list_tools.completed",
        "output_item.done",
    ]
    item = {"id": "mcpl_1", "type": "mcp_list_tools", "server_label": "demo"}
    assert told[0]["item"] == {**item, "tools": []}
    assert telling.output == [
        {
            **item,
            "tools": [
                {
                    "name": "add",
                    "description": "Adds.",
                    "input_schema": {"type": "object"},
                    "annotations": {"readOnlyHint": True},
                },
                {"name": "time", "input_schema": {}},
            ],
        }
    ]


def test_a_listing_that_failed(telling: Telling) -> None:
    told = telling.say(*listed(error=ToolError("http_error", "nobody there", 502)))
    assert kinds(told)[-2:] == ["mcp_list_tools.failed", "output_item.done"]
    assert (telling.output[0]["tools"], telling.output[0]["error"]) == ([], "nobody there")
    telling.end()
    assert check_events(telling.told) == []


def test_listings_are_concluded_in_order_whoever_answers_first(telling: Telling) -> None:
    (ask_one, one), (ask_two, two) = (listed(label=label) for label in ("one", "two"))
    told = telling.say(ask_one, ask_two, two, one)
    assert kinds(told)[4:] == [
        "mcp_list_tools.completed",
        "mcp_list_tools.completed",
        "output_item.done",
        "output_item.done",
    ]
    assert [item["server_label"] for item in telling.output] == ["one", "two"]
    telling.end()
    assert check_events(telling.told) == []


def test_a_call_of_the_servers(telling: Telling) -> None:
    told = telling.say(delta("c1", '{"a"'), delta("c1", ":1}"), called("c1", '{"a":1}'), asked("c1"), answered("c1"))
    assert kinds(told) == [
        "output_item.added",
        "mcp_call.in_progress",
        "mcp_call_arguments.delta",
        "mcp_call_arguments.delta",
        "mcp_call_arguments.done",
        "mcp_call.completed",
        "output_item.done",
    ]
    item = {"id": "mcp_1", "type": "mcp_call", "server_label": "demo", "name": "add", "approval_request_id": None}
    item["model_call_id"] = "c1"
    assert told[0]["item"] == {**item, "status": "in_progress", "arguments": "", "output": None, "error": None}
    assert telling.output == [{**item, "status": "completed", "arguments": '{"a":1}', "output": "3", "error": None}]
    telling.end()
    assert check_events(telling.told) == []


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ToolError("http_error", "gone", 502), {"type": "http_error", "code": 502, "message": TEXT}),
        (ToolError("mcp_protocol_error", "x", -1), {"type": "mcp_protocol_error", "code": -1, "message": TEXT}),
        (
            ToolError("mcp_tool_execution_error", "x"),
            {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": TEXT}]},
        ),
    ],
)
def test_a_call_that_failed(telling: Telling, error: ToolError, shown: dict[str, object]) -> None:
    told = telling.say(called("c1"), asked("c1"), answered("c1", TEXT, error))
    assert kinds(told)[-2:] == ["mcp_call.failed", "output_item.done"]
    item = telling.output[0]
    assert (item["status"], item["output"], item["error"]) == ("failed", None, shown)
    telling.end()
    assert check_events(telling.told) == []


def test_a_result_of_parts_is_text_for_those_who_know_no_more() -> None:
    telling = Telling()
    telling.say(called("c1"), asked("c1"), answered("c1", (Text("a"), Image("http://x/y.png"), Text("b"))))
    item = telling.output[0]
    assert item["output"] == "a\nb"
    assert [part["type"] for part in item["output_parts"]] == ["input_text", "input_image", "input_text"]


def test_space_around_arguments_is_not_told(telling: Telling) -> None:
    pieces = [" ", "\n{", ' "a b"', " : 1} ", "\t"]
    told = telling.say(*[delta("c1", piece) for piece in pieces], called("c1", '{ "a b" : 1}'))
    assert "".join(event["delta"] for event in told if "delta" in event) == '{ "a b" : 1}'
    assert kinds(told).count("mcp_call_arguments.delta") == 3


def test_no_arguments_are_an_object(telling: Telling) -> None:
    told = telling.say(delta("c1", ""), called("c1", "{}"))
    assert [event["delta"] for event in told if "delta" in event] == ["{}"]


def test_calls_side_by_side(telling: Telling) -> None:
    """They interleave, never share an index, and are concluded in order, though the second is answered first."""
    said = [delta("c1", "{"), delta("c2", "{"), delta("c1", "}"), called("c2"), called("c1")]
    told = telling.say(*said, asked("c1"), asked("c2"), answered("c2", "two"), answered("c1", "one"))
    assert kinds(told)[-4:] == ["mcp_call.completed", "mcp_call.completed", "output_item.done", "output_item.done"]
    assert [event["output_index"] for event in told[-4:]] == [1, 0, 0, 1]
    assert [item["output"] for item in telling.output] == ["one", "two"]
    telling.say(TextDelta("done"), message("done"))
    telling.end()
    assert check_events(telling.told) == []


def test_a_call_of_the_clients_waits_for_the_servers_before_it(telling: Telling) -> None:
    telling.say(called("c1"), ItemDone(ToolCall("c2", "look", "{}")))
    assert [item["type"] for item in telling.output] == ["function_call"]
    told = telling.say(asked("c1"), answered("c1"))
    assert [event["item"]["type"] for event in told if event["type"].endswith("item.done")] == [
        "mcp_call",
        "function_call",
    ]
    telling.end()
    assert check_events(telling.told) == []


def test_the_calls_of_a_turn_share_a_stem() -> None:
    telling = Telling(ids=RandomIds())
    for turn in (["c1", "c2", "c3"], ["c1"], ["c2", "c1"]):
        telling.say(*[called(each) for each in turn], *[asked(each) for each in turn])
        telling.say(*[answered(each) for each in reversed(turn)])
    ids = [item["id"] for item in telling.output]
    stems = [re.fullmatch(r"(mcp_[0-9a-f]{32})(_\d)?", each).group(1) for each in ids]
    assert [each.removeprefix(stem) for each, stem in zip(ids, stems, strict=True)] == ["", "_2", "_3", "", "", "_2"]
    assert len(set(stems)) == 3
    assert stems == [stems[0]] * 3 + [stems[3]] + [stems[4]] * 2


def test_what_nobody_announced_is_a_bug_of_ours(telling: Telling) -> None:
    for unannounced in (ToolsListed("demo"), asked("c1"), answered("c1"), ItemDone(ToolResult("c1", ""))):
        with pytest.raises(LocalProtocolError):
            telling.say(unannounced)


# ── open items at the end ─────────────────────────────────────────────────────


@pytest.mark.parametrize("finish", [CUT, FAILED, CANCELLED])
def test_everything_open_is_ended_in_order(telling: Telling, finish: Finish) -> None:
    telling.say(ReasoningDelta("hm"), TextDelta("Hel"), CallDelta("c1", "look", "{"), delta("c2", "{"))
    told = telling.end(finish)
    done = [event for event in told if event["type"] == "response.output_item.done"]
    assert [(event["output_index"], event["item"]["status"]) for event in done] == [
        (index, "incomplete") for index in range(4)
    ]
    ends = [event["output_index"] for event in told if "output_index" in event]
    assert ends == sorted(ends)
    assert check_events(telling.told, cancelled=finish is CANCELLED) == []


def test_a_listing_that_was_cut_off_failed(telling: Telling) -> None:
    telling.say(listed()[0])
    telling.end(FAILED)
    assert telling.output[0]["error"] == LISTING_CUT
    assert check_events(telling.told) == []


def test_whether_a_call_that_was_cut_off_took_effect_is_unknown(telling: Telling) -> None:
    telling.say(called("c1"), called("c2"), asked("c1"))
    told = telling.end(FAILED)
    assert kinds(told).count("mcp_call.failed") == 2
    executing, waiting = telling.output
    assert (executing["status"], executing["error"]["message"]) == ("failed", OUTCOME_UNKNOWN.message)
    assert (waiting["status"], waiting["error"]) == ("incomplete", None)
    assert check_events(telling.told) == []


def test_what_a_turn_left_without_an_end_ends_with_it(telling: Telling) -> None:
    telling.say(TextDelta("a"), delta("c0", "{"), called("c1"), asked("c1"), answered("c1"), TextDelta("b"))
    telling.end()
    assert [(item["type"], item["status"]) for item in telling.output] == [
        ("message", "completed"),
        ("mcp_call", "failed"),
        ("mcp_call", "completed"),
        ("message", "completed"),
    ]
    assert check_events(telling.told) == []


def test_a_turn_that_broke_off_is_told_again(telling: Telling) -> None:
    """What it said stands; a call it had finished is made, and one it had not is none."""
    telling.say(ReasoningDelta("hm"), TextDelta("Hel"), called("c1"), delta("c2", "{"))
    told = telling.say(TurnCut())
    assert kinds(told).count("mcp_call.failed") == 1
    assert {item["id"]: item["status"] for item in telling.output} == {
        "rs_1": "completed",
        "msg_1": "completed",
        "mcp_1_2": "failed",
    }
    telling.say(asked("c1"), answered("c1"), TextDelta("Hello"), message("Hello"))
    telling.end()
    assert [item["status"] for item in telling.output][2:] == ["completed", "failed", "completed"]
    assert check_events(telling.told) == []


# ── odd characters, odd items ─────────────────────────────────────────────────


def test_no_event_has_a_line_break_in_it() -> None:
    pretty = Raw(b'{\r\n "type": "object"\n}')
    tools = [Raw(b'{"type":"function",\n"name":"f",\r\n"parameters":{\n}}')]
    telling = Telling(tools=tools, tool_choice=Raw(b'{\n"type":"function","name":"f"}'), metadata={"a": "b\nc"})
    telling.say(*listed(ToolSpec("add", pretty, "two\nlines", annotations=pretty)), TextDelta("a\r\nb"))
    telling.say(ItemDone(Opaque("acme:x", Raw(b'{\n"type":"acme:x"}'))))
    telling.end()
    assert not [event for event in telling.events if b"\n" in event.data or b"\r" in event.data]
    assert telling.output[1]["content"][0]["text"] == "a\r\nb"


@pytest.mark.parametrize(("said", "shown"), [("a\ud83d", "a\ufffd"), ("\ud83d\ude00", "😀"), ("é\udc00é", "é\ufffdé")])
def test_half_a_character_is_replaced(telling: Telling, said: str, shown: str) -> None:
    telling.say(TextDelta(said), message(said), called("c1", said), asked("c1"), answered("c1", said))
    telling.end()
    assert telling.output[0]["content"][0]["text"] == shown
    assert (telling.output[1]["arguments"], telling.output[1]["output"]) == (shown, shown)
    assert check_events(telling.told) == []


def test_an_item_of_an_unknown_kind_is_told_as_it_is(telling: Telling) -> None:
    raw = Raw(b'{"type":"acme:weather","status":"completed","forecast":["rain"]}')
    telling.say(ItemDone(Opaque("acme:weather", raw)), ItemDone(Opaque("acme:x", Raw(b'{"type":"acme:x","id":"x_1"}'))))
    telling.end()
    first, second = telling.output
    assert first == {"type": "acme:weather", "status": "completed", "forecast": ["rain"], "id": "item_1"}
    assert second == {"type": "acme:x", "id": "x_1"}
    assert check_events(telling.told) == []
