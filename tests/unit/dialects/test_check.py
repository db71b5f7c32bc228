"""The checker accepts what is legal, notices whatever is changed about it, and never breaks itself."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.dialects.openai_responses.check import MOST, check_events, check_sse
from tests.unit.dialects.stories import (
    ENDS,
    LEGAL,
    RESPONSE,
    USAGE,
    Json,
    Story,
    approval,
    call,
    listing,
    mcp_call,
    numbered,
    plain,
    search,
    text_part,
    think,
    told,
    write,
)

DELTA = "response.output_text.delta"


def sse(events: list[Json], end: bytes = b"data: [DONE]\n\n") -> bytes:
    frames = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
    return "".join(frames).encode() + end


# ── what is legal ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", LEGAL)
def test_every_kind_of_item_may_be_told(name: str) -> None:
    assert check_events(LEGAL[name]) == []
    assert check_sse(sse(LEGAL[name])) == []


def test_a_background_response_is_queued_first() -> None:
    story = Story("created", "queued", "in_progress")
    write(story)
    assert check_events(story.end()) == []


@pytest.mark.parametrize("kind", ENDS)
@pytest.mark.parametrize("profile", ["openai", "openresponses"])
def test_every_end(kind: str, profile: str) -> None:
    assert check_events(Story().end(kind), profile) == []


def test_a_response_may_fail_before_it_is_in_progress() -> None:
    assert check_events(Story("created").end("failed")) == []


def test_a_cancelled_response_just_ends() -> None:
    story = Story()
    story.add(id="msg_1", type="message", status="in_progress", role="assistant", content=[])
    events = numbered(story.events)
    assert check_events(events, cancelled=True) == []
    assert check_sse(sse(events, b""), cancelled=True) == []
    assert check_events(events) == ["the stream ends without an event that says how the response ended"]
    assert check_events(Story().end(), cancelled=True) == ["a cancelled response has no event that says it ended"]


def test_keepalives_and_comments_may_come_anywhere() -> None:
    story = Story()
    story.say("keepalive")
    tell = story.add(id="i_1", type="compaction")
    story.say("keepalive")
    tell("compaction.compacting")
    story.done(0, id="i_1", type="compaction", encrypted_content="x")
    assert check_sse(b": hello\n\n" + sse(story.end()) + b": bye\n\n") == []


ERROR: Json = {"code": "server_error", "message": "it broke", "param": None}


@pytest.mark.parametrize("before", [Story, lambda: Story("created")])
def test_after_an_error_comes_the_failure(before: Callable[[], Story]) -> None:
    story = before()
    story.say("error", **ERROR, error={"type": "server_error", **ERROR})
    assert check_events(numbered(story.events), "openai") == []
    missed = ["the stream ends without response.failed after the error"]
    assert check_events(numbered(story.events), "openresponses") == missed
    events = story.end("failed")
    assert check_events(events, "openai") == check_events(events, "openresponses") == []


def test_an_error_may_be_all_there_is() -> None:
    story = Story("created")
    story.events.clear()
    story.say("error", **ERROR)
    assert check_events(numbered(story.events)) == []


def test_the_reasoning_events_tell_the_contracts_apart() -> None:
    names = {"openai": "reasoning_text", "openresponses": "reasoning"}
    streams = {profile: told(lambda story, name=name: think(story, name)) for profile, name in names.items()}
    for profile, events in streams.items():
        assert check_events(events) == check_events(events, profile) == []
        other = next(each for each in names if each != profile)
        faults = check_events(events, other)
        assert len(faults) == 3
        assert all(f"the profile {other} does not have this event" in fault for fault in faults)


# ── whatever is changed is noticed ────────────────────────────────────────────

# What one event less, or one twice, still leaves legal.
OPTIONAL = {"response.image_generation_call.partial_image", "response.compaction.compacting"}
# What is said of different things may be said in either order, and these are the ones a legal stream has side by side.
UNRELATED = [
    {"response.output_text.delta", "response.output_text.annotation.added"},
    {"response.reasoning_summary_part.done", "response.content_part.added"},
    {"response.output_item.done", "response.output_item.added"},
]


@pytest.mark.parametrize("name", LEGAL)
def test_an_event_that_is_missing_or_comes_twice_is_noticed(name: str) -> None:
    events = LEGAL[name]
    for position, event in enumerate(events):
        before, after = events[:position], events[position + 1 :]
        assert check_events(numbered([*before, event, event, *after])), f"{event['type']} twice"
        if event["type"] not in OPTIONAL:
            assert check_events(numbered([*before, *after])), f"no {event['type']}"


@pytest.mark.parametrize("name", [name for name in LEGAL if name != "side by side"])
def test_events_in_another_order_are_noticed(name: str) -> None:
    events = LEGAL[name]
    for position in range(len(events) - 1):
        one, two = events[position : position + 2]
        swapped = numbered([*events[:position], two, one, *events[position + 2 :]])
        if {one["type"], two["type"]} not in UNRELATED:
            assert check_events(swapped), f"{two['type']} before {one['type']}"


# Nothing else in a stream repeats these.
UNCHECKED = {"logprobs", "partial_image_b64"}


@pytest.mark.parametrize("name", LEGAL)
def test_a_field_that_is_missing_or_another_is_noticed(name: str) -> None:
    events = LEGAL[name]
    for position, event in enumerate(events):
        for field, value in event.items():
            without = {key: each for key, each in event.items() if key != field}
            for changed in (without, {**event, field: None}, *other(event, field, value)):
                found = check_events([*events[:position], changed, *events[position + 1 :]])
                assert found, f"{event['type']} with {field}={changed.get(field)!r}"


def other(event: Json, field: str, value: Any) -> Iterator[Json]:
    """The event with another value of the same type."""
    if field in UNCHECKED or field == "type":
        return
    if isinstance(value, int):
        yield {**event, field: value + 1}
        yield {**event, field: -1}
    elif isinstance(value, str):
        yield {**event, field: value + "x"}
    elif isinstance(value, dict):
        yield {**event, field: {}}
    elif isinstance(value, list):
        yield {**event, field: [*value, "x"]}


@pytest.mark.parametrize("name", LEGAL)
def test_a_terminal_event_that_tells_another_story_is_noticed(name: str) -> None:
    *before, last = LEGAL[name]
    output: list[Json] = last["response"]["output"]
    wrong: list[list[Json]] = [[*output, {"id": "x", "type": "message"}]]
    for position, item in enumerate(output):
        wrong.append([*output[:position], *output[position + 1 :]])
        wrong += [[*output[:position], {**item, field: "other"}, *output[position + 1 :]] for field in item]
    for each in wrong:
        assert check_events([*before, {**last, "response": {**last["response"], "output": each}}])


# ── rules one by one ──────────────────────────────────────────────────────────


def edited(events: list[Json], kind: str, path: str, value: Any, nth: int = 0) -> list[Json]:
    """A copy in which the `nth` event of the kind has another value at the dotted path; `...` removes it."""
    events = copy.deepcopy(events)
    target = [event for event in events if event["type"] == f"response.{kind}"][nth]
    *steps, last = path.split(".")
    for step in steps:
        target = target[int(step) if step.isdigit() else step]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return events


def ended(kind: str, **fields: Any) -> list[Json]:
    return Story().end(kind, **fields)


def opened(*parts: Callable[[Story], None], **item: Any) -> list[Json]:
    story = Story()
    for part in parts:
        part(story)
    story.add(**item)
    return story.end()


def overlapping() -> list[Json]:
    """Items that are concluded in the wrong order."""
    story = Story()
    items = [{"id": f"i_{n}", "type": "compaction", "encrypted_content": "x"} for n in range(2)]
    for item in items:
        story.add(**item)
    for index in (1, 0):
        story.done(index, **items[index])
    return story.end()


def interrupted_approval() -> list[Json]:
    story = Story()
    whole = {"id": "mcpr_1", "type": "mcp_approval_request", "server_label": "d", "name": "n", "arguments": "{}"}
    story.add(**whole)
    listing(story)
    story.done(0, **whole)
    return story.end()


def two_parts_at_once() -> list[Json]:
    story = Story()
    tell = story.add(id="msg_1", type="message", status="in_progress", role="assistant", content=[])
    tell("content_part.added", content_index=0, part=text_part(""))
    tell("content_part.added", content_index=0, part=text_part(""))
    return numbered(story.events)


def open_part() -> list[Json]:
    """A message that is concluded while a part of it is being written."""
    story = Story()
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    tell = story.add(**whole, status="in_progress")
    tell("content_part.added", content_index=0, part=text_part(""))
    story.done(0, **whole, status="completed")
    return story.end()


def after_the_end() -> list[Json]:
    events = told(write)
    return numbered([*events, events[-2]])


def in_the_middle(**event: Any) -> list[Json]:
    story = Story()
    story.events.append(event)
    return story.end()


def after_an_error(*kinds: str) -> list[Json]:
    story = Story()
    story.say("error", **ERROR)
    for kind in kinds:
        story.say(kind, output_index=0, item={"id": "i", "type": "compaction"})
    return story.end("failed")


def incomplete_then_more(story: Story) -> None:
    write(story, status="incomplete")
    listing(story)


MCP_ERROR = {"type": "http_error", "code": 502, "message": "x"}

ILLEGAL: dict[str, tuple[list[Json], str]] = {
    # the response
    "numbers from one": ([{**e, "sequence_number": e["sequence_number"] + 1} for e in told(write)], "instead of 0"),
    "numbers are integers": ([{**e, "sequence_number": True} for e in told(write)], "sequence_number is True"),
    "unknown event": (in_the_middle(type="response.route", worker="w"), "there is no such event"),
    "no type": (in_the_middle(item=1), "there is no such event"),
    "begins with an item": (told(write)[2:], "it comes before response.in_progress"),
    "begins in progress": (numbered(told()[1:]), "it comes after nothing"),
    "queued late": (numbered(Story("created", "in_progress", "queued").events), "after response.in_progress"),
    "created twice": (numbered(Story("created", "created").events), "it comes after response.created"),
    "completed at once": (numbered([told()[0], told()[-1]]), "it comes after response.created"),
    "after the end": (after_the_end(), "it comes after the end"),
    "another id": (edited(told(), "completed", "response.id", "resp_2"), "response.id has changed"),
    "another object": (edited(told(), "created", "response.object", "thing"), "response.object is not response"),
    "wrong status at first": (edited(told(), "created", "response.status", "completed"), "status is completed"),
    "wrong status": (edited(told(), "in_progress", "response.status", "queued"), "response.status is queued"),
    "wrong last status": (edited(told(), "completed", "response.status", "failed"), "response.status is failed"),
    "output at first": (edited(told(), "created", "response.output", [{}]), "response.output is not empty"),
    "usage at first": (edited(told(), "created", "response.usage", USAGE), "response.usage is not null"),
    "no model": (edited(told(), "created", "response.model", ...), "response lacks model"),
    "no usage": (ended("completed", usage=None), "response.usage.input_tokens is missing"),
    "wrong sum": (ended("completed", usage={**USAGE, "total_tokens": 6}), "total_tokens is not the sum"),
    "completed never": (ended("completed", completed_at=None), "completed_at is not a time"),
    "completed with an error": (ended("completed", error=ERROR), "response.error is not null"),
    "failed without a reason": (ended("failed", error=None), "response.error.code is missing"),
    "incomplete without a reason": (ended("incomplete", incomplete_details=None), "incomplete_details.reason is"),
    "failed and incomplete": (ended("failed", incomplete_details={"reason": "x"}), "incomplete_details is not null"),
    "asks and is incomplete": (
        [*told(approval)[:-1], {**Story().end("incomplete", output=told(approval)[-1]["response"]["output"])[-1],
                                "sequence_number": len(told(approval)) - 1}],
        "a response that asks somebody something completes",
    ),
    "items after an error": (after_an_error("output_item.added"), "only response.failed may follow an error"),
    "an error without a message": (in_the_middle(type="error", code="x"), "message is missing"),
    "an error of two minds": (
        in_the_middle(type="error", **ERROR, error={**ERROR, "type": "server_error", "message": "other"}),
        "error.message is not what the event says",
    ),
    # items
    "an open item": (opened(id="i", type="compaction"), "these items are not done: i"),
    "index twice": (edited(told(listing, call), "output_item.added", "output_index", 0, nth=1), "is 0 instead of 1"),
    "index skipped": (edited(told(write), "output_item.added", "output_index", 1), "is 1 instead of 0"),
    "no such index": (edited(told(write), "output_text.delta", "output_index", 7), "no item has output_index 7"),
    "id twice": (told(plain("compaction", encrypted_content=""), plain("program", call_id="", code="")), "another"),
    "another id of an item": (edited(told(call), "output_item.done", "item.id", "fc_2"), "not the one that was added"),
    "another type": (edited(told(call), "output_item.done", "item.type", "program"), "not the one that was added"),
    "id of another item": (edited(told(call), "function_call_arguments.delta", "item_id", "fc_2"), "item_id is not"),
    "unknown kind": (told(plain("surprise")), "there is no kind of item called surprise"),
    "no id": (edited(told(call), "output_item.added", "item.id", ...), "item.id is missing"),
    "no call_id": (edited(told(call), "output_item.added", "item.call_id", ...), "item.call_id is missing"),
    "done at the beginning": (
        edited(told(call), "output_item.added", "item.status", "completed"),
        "item.status is completed at the beginning",
    ),
    "a message of the user's": (edited(told(write), "output_item.added", "item.role", "user"), "is not assistant"),
    "still in progress": (edited(told(call), "output_item.done", "item.status", "in_progress"), "not one it may end"),
    "phase null": (edited(told(write), "output_item.done", "item.phase", None), "item.phase is null"),
    "done out of order": (overlapping(), "an item before it is not done yet"),
    "a pause before a request is done": (interrupted_approval(), "has to be done right after it was added"),
    "completed and failed": (
        edited(told(mcp_call), "output_item.done", "item.status", "failed"),
        "item.status failed does not fit its events",
    ),
    "failed and completed": (
        edited(told(lambda story: mcp_call(story, MCP_ERROR)), "output_item.done", "item.status", "completed"),
        "item.status completed does not fit its events",
    ),
    "an error that is none": (
        edited(told(lambda story: mcp_call(story, MCP_ERROR)), "output_item.done", "item.error", "gone"),
        "item.error is none of mcp_protocol_error",
    ),
    "an error without a code": (
        edited(told(lambda story: mcp_call(story, MCP_ERROR)), "output_item.done", "item.error.code", ...),
        "item.error.code is missing",
    ),
    "an error though it completed": (
        edited(told(mcp_call), "output_item.done", "item.error", MCP_ERROR),
        "item.error is set although it completed",
    ),
    "a search that never searched": (
        [e for e in told(search("web_search_call", action={})) if not e["type"].endswith("searching")],
        "it may not come here in an item of type web_search_call",
    ),
    # parts and texts
    "text without a part": (
        numbered([e for e in told(write) if e["type"] != "response.content_part.added"]), "no part is open"
    ),
    "two parts at once": (two_parts_at_once(), "another part is open"),
    "done with an open part": (open_part(), "a part of its content is still open"),
    "part index skipped": (edited(told(write), "content_part.added", "content_index", 1), "content_index is not 0"),
    "text of another part": (edited(told(write), "refusal.delta", "content_index", 0), "content_index is not 1"),
    "deltas that are not the text": (edited(told(write), "output_text.delta", "delta", "Bad "), "its deltas said"),
    "arguments that are not": (edited(told(call), "function_call_arguments.done", "arguments", "{}"), "its deltas"),
    "a part that is not its text": (edited(told(write), "content_part.done", "part.text", "x"), "is not what was said"),
    "an item that is not its text": (
        edited(told(call), "output_item.done", "item.arguments", "{}"),
        "item.arguments is not what was said",
    ),
    "an item without its parts": (edited(told(write), "output_item.done", "item.content", []), "not what was said"),
    "a summary that is not": (edited(told(think), "output_item.done", "item.summary", []), "item.summary is not what"),
    "an annotation nobody added": (edited(told(write), "content_part.done", "part.annotations", []), "annotations"),
    "annotation index": (
        edited(told(write), "output_text.annotation.added", "annotation_index", 3),
        "annotation_index is not 0",
    ),
    "a refusal in reasoning": (
        edited(told(think), "content_part.added", "part", {"type": "refusal", "refusal": ""}),
        "a part of type refusal does not belong there",
    ),
    "arguments of another kind": (
        [{**e, "type": e["type"].replace("function_call", "mcp_call")} for e in told(call)],
        "it may not come here in an item of type function_call",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_breaks_a_rule_is_named(name: str) -> None:
    events, fault = ILLEGAL[name]
    assert [each for each in check_events(events) if fault in each], check_events(events)


STRICT: dict[str, tuple[list[Json], str]] = {
    "a key that is required": (edited(told(), "completed", "response.top_p", ...), "response lacks top_p"),
    "verbosity null": (edited(told(), "created", "response.text.verbosity", None), "text.verbosity is null"),
    "an item after an incomplete one": (told(incomplete_then_more), "so it must be the last"),
    "an incomplete item in a complete response": (
        told(lambda story: write(story, status="incomplete")),
        "msg_1 is incomplete, and so must be the response",
    ),
    "a flat error": (in_the_middle(type="error", **ERROR), "error.type is missing"),
}


@pytest.mark.parametrize("name", STRICT)
def test_what_only_the_open_contract_demands(name: str) -> None:
    events, fault = STRICT[name]
    assert not [each for each in check_events(events, "openai") if fault in each]
    assert [each for each in check_events(events, "openresponses") if fault in each]


# ── server-sent events ────────────────────────────────────────────────────────

GOOD = sse(told(write))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "the stream ends without an event"),
        (GOOD.removesuffix(b"data: [DONE]\n\n"), "the stream ends without [DONE]"),
        (GOOD + b"data: [DONE]\n\n", "comes after [DONE]"),
        (GOOD[:-1], "the stream ends in the middle of an event"),
        (GOOD.replace(b"event: response.created", b"event: message", 1), "its event is ['message']"),
        (GOOD.replace(b"event: response.created\n", b"", 1), "its event is None"),
        (GOOD.replace(b"event: response.created", b"id: 1\nevent: response.created", 1), "it has a field id"),
        (GOOD.replace(b"data: {", b"data: [", 1), "its data is no JSON object"),
        (GOOD.replace(b"data: {", b"data: 7 {", 1), "its data is no JSON object"),
        (b"\xff" + GOOD, "the stream is not UTF-8"),
    ],
)
def test_frames(data: bytes, fault: str) -> None:
    found = check_sse(data)
    assert [each for each in found if fault in each], found


def test_a_stream_that_was_cancelled_claims_no_end() -> None:
    events = numbered(Story().events)
    assert check_sse(sse(events), cancelled=True) == ["[DONE] closes a stream that did not end"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_line_ends(line_end: bytes) -> None:
    assert check_sse(GOOD.replace(b"\n", line_end)) == []


def test_a_stream_full_of_faults_is_not_answered_in_full() -> None:
    assert len(check_events([{"type": "nothing"}] * 1000)) <= MOST + 1


# ── whatever comes ────────────────────────────────────────────────────────────

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "id", "text"]), inner),
    max_leaves=4,
)
some_events = st.sampled_from([event for events in LEGAL.values() for event in events])


@st.composite
def spoiled(draw: st.DrawFn) -> list[Json]:
    """A legal stream, with values replaced by anything at any depth and events from other streams in between."""
    events = copy.deepcopy(draw(st.sampled_from(list(LEGAL.values()))))
    for _ in range(draw(st.integers(1, 4))):
        target: Any = draw(st.sampled_from(events))
        while True:
            keys = list(target) if isinstance(target, dict) else list(range(len(target)))
            key = draw(st.sampled_from(keys))
            if isinstance(target[key], dict | list) and target[key] and draw(st.booleans()):
                target = target[key]
                continue
            target[key] = draw(json_values)
            break
    events.insert(draw(st.integers(0, len(events))), draw(some_events))
    return events


@settings(max_examples=1000)
@given(spoiled(), st.sampled_from(["openai", "openresponses", None]))
def test_whatever_comes_is_answered(events: list[Json], profile: str | None) -> None:
    assert check_events(events, profile)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_whatever_bytes_come_are_answered(data: bytes) -> None:
    assert check_sse(data)
    assert check_sse(GOOD[:300] + data)


def test_the_response_used_here_has_all_that_is_required() -> None:
    assert len(RESPONSE) == 31
