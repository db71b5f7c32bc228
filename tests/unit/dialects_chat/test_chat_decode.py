"""Chunks of a chat stream as turn events, from every engine's way of writing them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.dialects.openai_chat.decode import ChatDecoder
from app.dialects.openai_chat.faults import EngineFault
from app.turn.events import (
    CallDelta,
    ItemDone,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TurnDone,
    TurnEvent,
)
from app.turn.ids import CountedIds
from app.turn.items import Message, Reasoning, Refusal, Text, ToolCall
from app.turn.usage import Usage


def decoder(**given: Any) -> ChatDecoder:
    ids = CountedIds()
    return ChatDecoder(lambda: ids.new("call"), **given)


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def decode(*chunks: dict[str, Any] | str, **given: Any) -> list[TurnEvent]:
    """The events of a stream that ends with [DONE]."""
    made = decoder(**given)
    events: list[TurnEvent] = []
    for each in (*chunks, "[DONE]"):
        events += made.feed((each if isinstance(each, str) else json.dumps(each)).encode())
    return events


def said(text: str) -> list[TurnEvent]:
    return [ItemDone(Message("assistant", (Text(text),)))]


def piece(
    index: int | None = 0, identity: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    """A piece of a call; what is None is left out."""
    function = {"name": name, "arguments": arguments}
    made = {"index": index, "id": identity, "function": {k: v for k, v in function.items() if v is not None}}
    return {key: value for key, value in made.items() if value is not None}


def called(*calls: tuple[str, str, str]) -> list[TurnEvent]:
    """The events of calls that come in one piece each."""
    events: list[TurnEvent] = []
    for call_id, name, arguments in calls:
        events += [CallDelta(call_id, name, arguments), ItemDone(ToolCall(call_id, name, arguments))]
    return events


# ── text ──────────────────────────────────────────────────────────────────────


def test_text() -> None:
    events = decode(
        chunk(role="assistant", content=""), chunk(content="Hel"), chunk(content="lo", role=None), chunk("stop")
    )
    assert events == [TextDelta("Hel"), TextDelta("lo"), *said("Hello"), TurnDone("stop")]


@pytest.mark.parametrize(
    "noise",
    [
        {"choices": []},
        {"choices": None},
        {},
        {"choices": [{"index": 0}]},
        {"choices": [{"index": 0, "delta": None}]},
        {"choices": [{"delta": {"content": None, "tool_calls": None, "reasoning": None}}]},
        {"choices": [{"index": 1, "delta": {"content": "another answer"}, "finish_reason": "length"}]},
        {"object": "chat.completion.chunk", "timings": {"x": 1}, "choices": []},
        {"error": None, "choices": []},
    ],
)
def test_chunks_that_say_nothing(noise: dict[str, Any]) -> None:
    events = decode(noise, chunk(content="Hi"), noise, chunk("stop"), noise)
    assert events == [TextDelta("Hi"), *said("Hi"), TurnDone("stop")]


def test_a_refusal() -> None:
    events = decode(chunk(refusal="I can"), chunk(refusal="not."), chunk("stop"))
    assert events == [
        RefusalDelta("I can"),
        RefusalDelta("not."),
        ItemDone(Message("assistant", (Refusal("I cannot."),))),
        TurnDone("stop"),
    ]


def test_a_refusal_after_text_is_part_of_the_message() -> None:
    events = decode(chunk(content="Well. "), chunk(refusal="No."), chunk("stop"))
    assert events[-2] == ItemDone(Message("assistant", (Text("Well. "), Refusal("No."))))


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thinking_in_either_field(field: str) -> None:
    events = decode(
        chunk(**{field: "Hm"}), chunk(**{field: "m."}), chunk(content="\n\n"), chunk(content="A."), chunk("stop")
    )
    assert events == [
        ReasoningDelta("Hm"),
        ReasoningDelta("m."),
        ItemDone(Reasoning("Hmm.")),
        TextDelta("\n\nA."),
        *said("\n\nA."),
        TurnDone("stop"),
    ]


def test_thinking_in_both_fields_is_said_once() -> None:
    assert decode(chunk(reasoning="Hm", reasoning_content="Hm"), chunk("stop")) == [
        ReasoningDelta("Hm"),
        ItemDone(Reasoning("Hm")),
        TurnDone("stop"),
    ]


def test_thinking_between_messages_makes_items_of_its_own() -> None:
    kinds = [
        type(event.item).__name__
        for event in decode(
            chunk(reasoning="a"), chunk(content="b"), chunk(reasoning="c"), chunk(content="d"), chunk("stop")
        )
        if isinstance(event, ItemDone)
    ]
    assert kinds == ["Reasoning", "Message", "Reasoning", "Message"]


def test_one_chunk_may_hold_everything() -> None:
    events = decode(
        chunk(
            "tool_calls",
            reasoning="Hm",
            content="So",
            tool_calls=[piece(0, "a", "add", "{}"), piece(1, "b", "now", "{}")],
        )
    )
    assert events == [
        ReasoningDelta("Hm"),
        ItemDone(Reasoning("Hm")),
        TextDelta("So"),
        *said("So"),
        *called(("a", "add", "{}"), ("b", "now", "{}")),
        TurnDone("tool_calls"),
    ]


def test_white_space_is_a_message_only_when_nothing_else_is() -> None:
    assert decode(chunk(content="\n"), chunk(content="\n"), chunk("stop")) == [
        TextDelta("\n\n"),
        *said("\n\n"),
        TurnDone("stop"),
    ]
    around = decode(
        chunk(content="\n"),
        chunk(tool_calls=[piece(0, "a", "add", "{}")]),
        chunk(content="\n\n"),
        chunk(tool_calls=[piece(1, "b", "add", "{}")]),
        chunk("tool_calls"),
    )
    assert around == [*called(("a", "add", "{}"), ("b", "add", "{}")), TurnDone("tool_calls")]


def test_nothing_at_all() -> None:
    assert decode(chunk("stop")) == [TurnDone("stop")]


# ── calls ─────────────────────────────────────────────────────────────────────


def test_a_call_in_pieces() -> None:
    events = decode(
        chunk(role="assistant", content=None, tool_calls=[piece(0, "call_7", "add", "")]),
        chunk(tool_calls=[piece(0, None, None, '{"a"')]),
        chunk(tool_calls=[piece(0, None, None, ": 1}")]),
        chunk("tool_calls"),
    )
    assert events == [
        CallDelta("call_7", "add", '{"a"'),
        CallDelta("call_7", "add", ": 1}"),
        ItemDone(ToolCall("call_7", "add", '{"a": 1}')),
        TurnDone("tool_calls"),
    ]


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        # one after the other, each in one piece
        ([piece(0, "a", "add", "{}"), piece(1, "b", "add", "{}")], [("a", "add", "{}"), ("b", "add", "{}")]),
        # no ids
        (
            [piece(0, None, "add", "{}"), piece(1, None, "now", "{}")],
            [("call_1", "add", "{}"), ("call_2", "now", "{}")],
        ),
        # an id that is used twice
        ([piece(0, "x", "add", "{}"), piece(1, "x", "now", "{}")], [("x", "add", "{}"), ("call_1", "now", "{}")]),
        # an id that is too long for the API
        ([piece(0, "x" * 65, "add", "{}")], [("call_1", "add", "{}")]),
        # the name in pieces
        ([piece(0, "a", "get_"), piece(0, None, "weather"), piece(0, None, None, "{}")], [("a", "get_weather", "{}")]),
        # the name again with each piece
        ([piece(0, "a", "add", '{"a":'), piece(0, "a", "add", "1}")], [("a", "add", '{"a":1}')]),
        ([piece(0, "a", "add"), piece(0, "a", "add", "{}")], [("a", "add", "{}")]),
        # arguments null, or none at all
        ([piece(0, "a", "now")], [("a", "now", "")]),
        ([{"index": 0, "id": "a", "function": {"name": "now", "arguments": None}}], [("a", "now", "")]),
        # arguments as an object
        ([piece(0, "a", "add", {"a": 1})], [("a", "add", '{"a":1}')]),
        # whatever the model made of them
        ([piece(0, "a", "add", "false")], [("a", "add", "false")]),
        ([piece(0, "a", "add", '{"a":')], [("a", "add", '{"a":')]),
        # all calls numbered 0, told apart by their ids
        ([piece(0, "a", "add", "{}"), piece(0, "b", "add", "{}")], [("a", "add", "{}"), ("b", "add", "{}")]),
        # no index
        ([piece(None, "a", "add", "{}"), piece(None, "b", "now", "{}")], [("a", "add", "{}"), ("b", "now", "{}")]),
        # neither index nor id
        (
            [piece(None, None, "add", "{}"), piece(None, None, "add", "{}")],
            [("call_1", "add", "{}"), ("call_2", "add", "{}")],
        ),
        # another id in each piece
        ([piece(0, "a", "add", '{"a":'), piece(0, "b", None, "1}")], [("a", "add", '{"a":1}')]),
        # a number for an id
        ([{"index": 0, "id": 5, "function": {"name": "add", "arguments": "{}"}}], [("5", "add", "{}")]),
    ],
)
def test_calls_as_engines_write_them(pieces: list[Any], calls: list[tuple[str, str, str]]) -> None:
    events = decode(*(chunk(tool_calls=[each]) for each in pieces), chunk("tool_calls"))
    done = [event.item for event in events if isinstance(event, ItemDone)]
    assert done == [ToolCall(*call) for call in calls]
    assert events[-1] == TurnDone("tool_calls")
    for call_id, name, arguments in calls:
        deltas = [event for event in events if isinstance(event, CallDelta) and event.call_id == call_id]
        assert deltas[0].name == name
        assert "".join(delta.arguments for delta in deltas) == arguments


def test_interleaved_calls_are_told_one_at_a_time() -> None:
    events = decode(
        chunk(tool_calls=[piece(0, "a", "add", '{"a":'), piece(1, "b", "add", '{"b":')]),
        chunk(tool_calls=[piece(1, None, None, "2}")]),
        chunk(tool_calls=[piece(0, None, None, "1}")]),
        chunk("tool_calls"),
    )
    assert events == [
        CallDelta("a", "add", '{"a":'),
        CallDelta("a", "add", "1}"),
        ItemDone(ToolCall("a", "add", '{"a":1}')),
        CallDelta("b", "add", '{"b":2}'),
        ItemDone(ToolCall("b", "add", '{"b":2}')),
        TurnDone("tool_calls"),
    ]


def test_a_call_ends_as_soon_as_the_next_begins() -> None:
    made = decoder()
    made.feed(json.dumps(chunk(tool_calls=[piece(0, "a", "add", "{}")])).encode())
    events = made.feed(json.dumps(chunk(tool_calls=[piece(1, "b", "add", "")])).encode())
    assert events == [ItemDone(ToolCall("a", "add", "{}"))]


def test_text_after_a_call_ends_it() -> None:
    events = decode(chunk(tool_calls=[piece(0, "a", "add", "{}")]), chunk(content="Done."), chunk("tool_calls"))
    assert events == [*called(("a", "add", "{}")), TextDelta("Done."), *said("Done."), TurnDone("tool_calls")]


def test_more_of_a_call_that_was_over_is_not_dropped_in_silence() -> None:
    with pytest.raises(EngineFault, match="was over"):
        decode(
            chunk(tool_calls=[piece(0, "a", "add", '{"a"')]),
            chunk(content="Hm."),
            chunk(tool_calls=[piece(0, None, None, ":1}")]),
        )


def test_white_space_after_a_call_that_was_over_is_nothing() -> None:
    events = decode(
        chunk(tool_calls=[piece(0, "a", "add", "{}")]),
        chunk(content="Hm."),
        chunk(tool_calls=[piece(0, "a", None, "\n")]),
        chunk("stop"),
    )
    assert next(event.item for event in events if isinstance(event, ItemDone)) == ToolCall("a", "add", "{}")


def test_a_call_without_a_name_is_a_fault() -> None:
    with pytest.raises(EngineFault, match="without a name"):
        decode(chunk(tool_calls=[piece(0, "a", None, "{}")]), chunk("tool_calls"))


# ── the end ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "stop"),  # but there are none
    ],
)
def test_reasons(given: str, reason: Any) -> None:
    assert decode(chunk(content="a"), chunk(given))[-1] == TurnDone(reason)


@pytest.mark.parametrize("given", ["stop", "tool_calls", "function_call"])
def test_a_turn_with_calls_stopped_for_them(given: str) -> None:
    assert decode(chunk(given, tool_calls=[piece(0, "a", "add", "{}")]))[-1] == TurnDone("tool_calls")


def test_a_turn_that_ran_out_of_tokens_in_a_call() -> None:
    events = decode(chunk(tool_calls=[piece(0, "a", "add", '{"a')]), chunk("length"))
    assert events[-2:] == [ItemDone(ToolCall("a", "add", '{"a')), TurnDone("length")]


@pytest.mark.parametrize("given", ["abort", "error"])
def test_an_engine_that_gave_up(given: str) -> None:
    with pytest.raises(EngineFault, match=given) as caught:
        decode(chunk(content="a"), chunk(given))
    assert caught.value.reported is not None


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (None, Usage()),
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}, Usage(5, 0, 3)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(5, 4, 3, 2),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": None}, Usage(5, 0, 3)),
        ({"prompt_tokens": 5, "completion_tokens": None, "reasoning_tokens": 2}, Usage(5, 0, 0, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 3, "prompt_cache_hit_tokens": 1}, Usage(5, 1, 3)),
    ],
)
def test_usage_comes_after_the_end(body: Any, usage: Usage) -> None:
    assert decode(chunk(content="a"), chunk("stop"), {"choices": [], "usage": body})[-1] == TurnDone("stop", usage)


def test_usage_in_every_chunk_counts_once() -> None:
    counted = [{**chunk(content="a"), "usage": {"prompt_tokens": 5, "completion_tokens": n}} for n in (1, 2)]
    assert decode(*counted, chunk("stop"))[-1] == TurnDone("stop", Usage(5, 0, 2))


def test_a_stream_without_a_finish_reason_was_cut() -> None:
    made = decoder()
    made.feed(json.dumps(chunk(content="a")).encode())
    assert made.feed(b"[DONE]") == []
    assert not made.complete
    assert made.end() == []


def test_a_stream_may_end_without_saying_done() -> None:
    made = decoder()
    made.feed(json.dumps(chunk("stop", content="a")).encode())
    assert not made.complete
    assert made.end() == [*said("a"), TurnDone("stop")]
    assert made.complete
    assert made.end() == []


def test_nothing_follows_the_end() -> None:
    made = decoder()
    made.feed(json.dumps(chunk("stop", content="a")).encode())
    made.feed(b"[DONE]")
    assert made.feed(b"[DONE]") == []
    assert made.feed(json.dumps(chunk(content="b")).encode()) == []


# ── faults ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data", ["{", "[]", "null", "5", "\udcff", '{"choices": 5}', '{"choices": [{"delta": {"content": 5}}]}', ""]
)
def test_a_chunk_that_is_none(data: str) -> None:
    with pytest.raises(EngineFault, match="cannot be read") as caught:
        decoder().feed(data.encode("utf-8", "surrogateescape"))
    assert caught.value.reported is None


def test_a_chunk_nested_too_deep() -> None:
    with pytest.raises(EngineFault):
        decoder().feed(b'{"choices":' + b"[" * 100_000)


@pytest.mark.parametrize(
    ("data", "message", "code", "status"),
    [
        ({"error": {"message": "Boom.", "type": "x", "code": 400}}, "Boom.", None, 400),
        ({"error": {"message": "Boom.", "code": "rate_limit"}}, "Boom.", "rate_limit", None),
        ({"error": "Boom."}, "Boom.", None, None),
        ({"object": "error", "message": "Boom.", "code": 500}, "Boom.", None, 500),
        ({"error": {}}, None, None, None),
    ],
)
def test_an_error_in_the_stream(data: Any, message: str | None, code: str | None, status: int | None) -> None:
    with pytest.raises(EngineFault) as caught:
        decoder().feed(json.dumps(data).encode())
    reported = caught.value.reported
    assert reported is not None
    assert (reported.message, reported.code, reported.status) == (message, code, status)


# ── answers that are no streams ───────────────────────────────────────────────


def test_a_whole_answer() -> None:
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": "So",
                    "reasoning_content": "Hm",
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
                        {"id": "b", "type": "function", "function": {"name": "add", "arguments": '{"a":2}'}},
                    ],
                },
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3},
    }
    assert decoder().whole(json.dumps(body).encode()) == [
        ReasoningDelta("Hm"),
        ItemDone(Reasoning("Hm")),
        TextDelta("So"),
        *said("So"),
        *called(("a", "add", '{"a":1}'), ("b", "add", '{"a":2}')),
        TurnDone("tool_calls", Usage(5, 0, 3)),
    ]


def test_a_whole_answer_without_an_answer() -> None:
    with pytest.raises(EngineFault, match="no finished choice"):
        decoder().whole(b'{"choices":[]}')


# ── log probabilities ─────────────────────────────────────────────────────────


def with_logprobs(text: str, *tokens: dict[str, Any], **delta: Any) -> dict[str, Any]:
    made = chunk(content=text, **delta)
    made["choices"][0]["logprobs"] = {"content": list(tokens)}
    return made


def test_logprobs_in_the_shape_of_responses() -> None:
    token = {"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Ho", "logprob": None, "bytes": [1]}]}
    events = decode(with_logprobs("Hi", token), chunk("stop"), logprobs=True)
    first = events[0]
    assert isinstance(first, TextDelta)
    assert first.logprobs is not None
    assert json.loads(bytes(first.logprobs)) == [
        {
            "token": "Hi",
            "logprob": -0.5,
            "bytes": [72, 105],
            "top_logprobs": [{"token": "Ho", "logprob": -9999.0, "bytes": [1]}],
        }
    ]


def test_logprobs_of_half_a_character_come_with_its_text() -> None:
    half = {"token": "\\xf0", "logprob": -1.0, "bytes": [240]}
    rest = {"token": "\\x9f", "logprob": -2.0, "bytes": [159]}
    events = decode(with_logprobs("", half), with_logprobs("🐑", rest), chunk("stop"), logprobs=True)
    first = events[0]
    assert isinstance(first, TextDelta)
    assert first.logprobs is not None
    assert [each["logprob"] for each in json.loads(bytes(first.logprobs))] == [-1.0, -2.0]


def test_logprobs_of_thinking_are_not_those_of_the_text() -> None:
    thought = with_logprobs("", {"token": "Hm", "logprob": -1.0}, reasoning="Hm")
    events = decode(thought, with_logprobs("A", {"token": "A", "logprob": -2.0}), chunk("stop"), logprobs=True)
    text = next(event for event in events if isinstance(event, TextDelta))
    assert text.logprobs is not None
    assert [each["token"] for each in json.loads(bytes(text.logprobs))] == ["A"]


@pytest.mark.parametrize("odd", [{"tokens": ["a"]}, {"content": None}, {"content": [5]}, [], "x"])
def test_logprobs_of_another_shape_cost_nothing_but_themselves(odd: Any) -> None:
    made = chunk(content="Hi")
    made["choices"][0]["logprobs"] = odd
    assert decode(made, chunk("stop"), logprobs=True) == [TextDelta("Hi"), *said("Hi"), TurnDone("stop")]


def test_logprobs_nobody_asked_for() -> None:
    events = decode(with_logprobs("Hi", {"token": "Hi", "logprob": -0.5}), chunk("stop"))
    assert events[0] == TextDelta("Hi")


# ── custom tools ──────────────────────────────────────────────────────────────


def text_piece(index: int = 0, identity: str | None = None, **custom: str) -> dict[str, Any]:
    """A piece of a custom tool's call."""
    return {"index": index, "type": "custom", "custom": custom} | ({} if identity is None else {"id": identity})


def test_the_text_of_a_custom_tool_becomes_its_arguments() -> None:
    pieces = [text_piece(0, "c1", name="code", input=""), text_piece(input='print("a'), text_piece(input='\n")')]
    events = decode(*(chunk(tool_calls=[each]) for each in pieces), chunk("tool_calls"))
    whole = json.dumps({"input": 'print("a\n")'}, separators=(",", ":"))
    *deltas, done, over = events
    assert "".join(each.arguments for each in deltas if isinstance(each, CallDelta)) == whole
    assert done == ItemDone(ToolCall("c1", "code", whole))
    assert over == TurnDone("tool_calls")


def test_texts_side_by_side_and_whole() -> None:
    first, second = text_piece(0, "c1", name="code", input="1"), text_piece(1, "c2", name="code", input="2")
    for chunks in ([chunk(tool_calls=[first, second])], [chunk(tool_calls=[first]), chunk(tool_calls=[second])]):
        events = decode(*chunks, chunk("tool_calls"))
        done = [each.item for each in events if isinstance(each, ItemDone)]
        assert done == [ToolCall("c1", "code", '{"input":"1"}'), ToolCall("c2", "code", '{"input":"2"}')]
