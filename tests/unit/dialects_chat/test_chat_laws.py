"""Laws of decoding: how a stream is cut changes nothing, and whatever an engine does comes out in a legal order."""

from __future__ import annotations

import json
from itertools import groupby, pairwise
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from app.dialects.openai_chat.call import Quirks, encode_request
from app.dialects.openai_chat.decode import ChatDecoder
from app.dialects.openai_chat.faults import EngineFault
from app.dialects.sse import SseParser
from app.turn.events import CallDelta, ItemDone, ReasoningDelta, RefusalDelta, TextDelta, TurnDone, TurnEvent
from app.turn.ids import CountedIds
from app.turn.items import Message, Reasoning, Refusal, Text, ToolCall, ToolResult
from app.turn.request import TurnRequest


def decoder() -> ChatDecoder:
    ids = CountedIds()
    return ChatDecoder(lambda: ids.new("call"))


# ── cutting bytes ─────────────────────────────────────────────────────────────

TEXT = st.text(st.sampled_from('ab \n\r🐑é"\\'), min_size=1, max_size=6)
PIECES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 2),
        "id": st.sampled_from(["a", "b", "", "x" * 70]),
        "function": st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["add", "now", "", None]),
                "arguments": st.sampled_from(["{}", "{", "}", '"a":1', "", " ", None, {"a": 1}]),
            },
        ),
        "custom": st.none()
        | st.fixed_dictionaries(
            {}, optional={"name": st.sampled_from(["code", "", None]), "input": TEXT | st.sampled_from(["", None])}
        ),
    },
)
DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "content": TEXT | st.sampled_from(["", " ", "\n", None]),
        "reasoning": TEXT | st.none(),
        "reasoning_content": TEXT | st.none(),
        "refusal": TEXT | st.none(),
        "tool_calls": st.lists(PIECES, max_size=3) | st.none(),
    },
)
CHUNKS = st.lists(DELTAS, max_size=12)
REASONS = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "eos"])


def stream_of(deltas: list[dict[str, Any]], reason: str | None, end: str = "\n") -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if reason is not None:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    lines = [f"data: {json.dumps(each, ensure_ascii=False)}{end}{end}: keepalive{end}{end}" for each in chunks]
    return "".join((*lines, f"data: [DONE]{end}{end}")).encode()


def decoded(chunks: list[bytes]) -> tuple[list[TurnEvent], str | None]:
    """The events, and the fault that ended them, if one did."""
    parser, made = SseParser(100_000), decoder()
    events: list[TurnEvent] = []
    try:
        for chunk in chunks:
            for sent in parser.feed(chunk):
                events += made.feed(sent.data)
    except EngineFault as fault:
        return events, fault.message
    return events, None


@settings(deadline=None)
@given(CHUNKS, REASONS | st.none(), st.sampled_from(["\n", "\r", "\r\n"]), st.lists(st.integers(0, 2000), max_size=30))
def test_how_a_stream_is_cut_changes_nothing(
    deltas: list[dict[str, Any]], reason: str | None, end: str, cuts: list[int]
) -> None:
    stream = stream_of(deltas, reason, end)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    assert decoded([stream[start:stop] for start, stop in pairwise(edges)]) == decoded([stream])


# ── the legal order ───────────────────────────────────────────────────────────


def key_of(said: TurnEvent) -> tuple[str, str]:
    """Which item a delta or an end belongs to."""
    match said:
        case TextDelta() | RefusalDelta() | ItemDone(item=Message()):
            return "message", ""
        case ReasoningDelta() | ItemDone(item=Reasoning()):
            return "reasoning", ""
        case CallDelta() | ItemDone(item=ToolCall()):
            return "call", said.call_id if isinstance(said, CallDelta) else said.item.call_id  # type: ignore[union-attr]
        case _:
            return "end", ""


def check_order(events: list[TurnEvent]) -> None:
    """Items come one after the other: deltas, then an end that repeats them."""
    items: list[list[TurnEvent]] = [[]]
    for said in events:
        items[-1].append(said)
        if isinstance(said, ItemDone):
            items.append([])
    *whole, last = items
    for item in whole:
        assert len({key_of(said) for said in item}) == 1, item
        *deltas, done = item
        assert deltas, "an end without a beginning"
        assert isinstance(done, ItemDone)
        check_item(deltas, done)
    assert len({key_of(said) for said in last if not isinstance(said, TurnDone)}) <= 1


def check_item(deltas: list[TurnEvent], done: ItemDone) -> None:
    match done.item:
        case Reasoning(text=text):
            assert text == "".join(said.text for said in deltas if isinstance(said, ReasoningDelta))
        case Message(content=parts):
            texts = "".join(part.text for part in parts if isinstance(part, Text))
            refusals = "".join(part.text for part in parts if isinstance(part, Refusal))
            assert texts == "".join(said.text for said in deltas if isinstance(said, TextDelta))
            assert refusals == "".join(said.text for said in deltas if isinstance(said, RefusalDelta))
        case ToolCall(name=name, arguments=arguments):
            assert name
            assert arguments == "".join(said.arguments for said in deltas if isinstance(said, CallDelta))
            assert {said.name for said in deltas if isinstance(said, CallDelta)} == {name}


@settings(deadline=None)
@given(CHUNKS, REASONS | st.none())
def test_whatever_an_engine_does_comes_out_in_order(deltas: list[dict[str, Any]], reason: str | None) -> None:
    events, fault = decoded([stream_of(deltas, reason)])
    event("fault" if fault else "cut" if reason is None else "done")
    check_order(events)
    ends = [said for said in events if isinstance(said, TurnDone)]
    assert len(ends) == (0 if fault or reason is None else 1)
    assert not ends or events[-1] == ends[0]
    calls = [said.item.call_id for said in events if isinstance(said, ItemDone) and isinstance(said.item, ToolCall)]
    assert len(calls) == len(set(calls))


# ── cutting what the model says ───────────────────────────────────────────────

WORDS = st.sampled_from(["a", " ", "b c", "\n\nd", "e" * 20])
ARGUMENTS = st.dictionaries(st.sampled_from("ab"), st.sampled_from([1, "x", "{}", '"', "🐑"])).map(json.dumps)
SAID = st.lists(
    st.one_of(
        st.tuples(st.just("reasoning"), WORDS),
        st.tuples(st.just("content"), WORDS.filter(str.strip)),
        st.tuples(st.just("call"), ARGUMENTS),
    ),
    max_size=6,
)


def merged(said: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one kind are one item, but each call is its own."""
    out: list[tuple[str, str]] = []
    for kind, group in groupby(said, lambda each: each[0]):
        texts = [text for _, text in group]
        out += [(kind, text) for text in texts] if kind == "call" else [(kind, "".join(texts))]
    return out


def deltas_of(said: list[tuple[str, str]], size: int) -> list[dict[str, Any]]:
    """`said` as an engine writes it, `size` characters a chunk."""
    deltas: list[dict[str, Any]] = []
    calls = 0
    for kind, text in said:
        cut = [text[at : at + size] for at in range(0, len(text), size)]
        if kind != "call":
            deltas += [{kind: each} for each in cut]
            continue
        head = {"index": calls, "id": f"id_{calls}", "function": {"name": "add", "arguments": ""}}
        rest = [{"index": calls, "function": {"arguments": each}} for each in cut]
        deltas += [{"tool_calls": [each]} for each in (head, *rest)]
        calls += 1
    return deltas


@settings(deadline=None)
@given(SAID, st.integers(1, 50))
def test_the_size_of_chunks_does_not_change_the_items(said: list[tuple[str, str]], size: int) -> None:
    events, fault = decoded([stream_of(deltas_of(said, size), "stop")])
    assert fault is None
    items: list[tuple[str, str]] = []
    for each in events:
        match each:
            case ItemDone(item=Reasoning(text=text)):
                items.append(("reasoning", text))
            case ItemDone(item=Message() as message):
                items.append(("content", message.text))
            case ItemDone(item=ToolCall(arguments=arguments)):
                items.append(("call", arguments))
            case _:
                pass
    assert items == merged(said)


# ── there and back ────────────────────────────────────────────────────────────


@settings(deadline=None)
@given(SAID)
def test_a_turn_is_given_back_to_the_engine_as_it_was_said(said: list[tuple[str, str]]) -> None:
    events, _ = decoded([stream_of(deltas_of(said, 7), "stop")])
    items = [each.item for each in events if isinstance(each, ItemDone)]
    results = [ToolResult(item.call_id, "ok") for item in items if isinstance(item, ToolCall)]
    request = TurnRequest(model="m", items=(*items, *results))
    messages = json.loads(encode_request(request, "m", Quirks(reasoning_field="reasoning")))["messages"]
    texts = [text for kind, text in merged(said) if kind == "content"]
    thoughts = [text for kind, text in merged(said) if kind == "reasoning"]
    calls = [text for kind, text in said if kind == "call"]
    if not texts and not calls:
        assert messages == []
        return
    assistant, *answers = messages
    assert assistant["content"] == "\n\n".join(texts)
    assert assistant.get("reasoning", "") == "\n\n".join(thoughts)
    assert [call["function"]["arguments"] for call in assistant.get("tool_calls", ())] == calls
    assert [answer["tool_call_id"] for answer in answers] == [f"id_{number}" for number in range(len(calls))]
