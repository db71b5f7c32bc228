"""That the checker of sockets finds what is wrong: each case breaks one rule of a legal connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import structs

from app.dialects.openai_responses.check_socket import check_socket
from app.dialects.openai_responses.decode import decode_create
from app.dialects.openai_responses.encode import ResponseEncoder
from app.turn.events import Finish, TextDelta
from app.turn.ids import CountedIds
from app.turn.usage import Usage

Json = dict[str, Any]


def told(name: str, previous: str | None = None, reason: str | None = None) -> list[Json]:
    """A response as it is told on the lane `a`."""
    request = structs.replace(decode_create(b'{"model":"m","input":"x"}'), previous_response_id=previous)
    encoder = ResponseEncoder(response_id=name, created_at=1, request=request, ids=CountedIds())
    finish = Finish("completed" if reason is None else "incomplete", Usage(), reason)
    events = [*encoder.start(), *encoder.feed(TextDelta("hi")), *encoder.close(finish)]
    encoder.settle(finish, 2)
    last = encoder.terminal()
    assert last is not None
    return [{**msgspec.json.decode(event.data), "stream_id": "a"} for event in (*events, last)]


def steer(kind: str, **fields: Any) -> Json:
    named = {"id": "steer_1", "previous_response_id": "resp_1"}
    return {"type": f"response.steer.{kind}", "sequence_number": 0, "steer": named, "stream_id": "a", **fields}


ERROR = {"type": "invalid_request_error", "code": "response_not_active", "message": "x", "param": None}
BACK = steer("failed", error=ERROR)
BACK["steer"] = {**BACK["steer"], "input": "x"}
PENDING = steer("pending", reason="waiting_for_required_input", required_input=[{}])


def steered() -> list[Json]:
    """A response that was steered, and its successor."""
    first = told("resp_1", reason="steered")
    return [*first[:4], steer("accepted"), *first[4:], *told("resp_2", "resp_1")]


def test_what_is_legal() -> None:
    assert check_socket(steered()) == []
    assert check_socket([*told("resp_1"), {"type": "error", "status": 400, "error": ERROR}]) == []
    first = told("resp_1")
    assert check_socket([*first[:3], steer("accepted"), *first[3:], PENDING, *told("resp_2", "resp_1")]) == []
    assert check_socket([*first[:3], steer("accepted"), *first[3:], BACK]) == []
    assert check_socket(first[:3], closed=True) == []


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (lambda frames: frames[:-1], "a response has no end"),
        (lambda frames: frames[1:], "it belongs to no response"),
        (lambda frames: [each for each in frames if "accepted" not in each["type"]], "and nothing was taken"),
        (lambda frames: frames[: len(told("resp_1")) + 1], "steer_1 was taken, and neither said nor given back"),
        (lambda frames: [*frames, BACK], "is said and given back"),
        (
            lambda frames: [*frames, {**steer("accepted"), "steer": {**BACK["steer"], "id": "steer_2"}}],
            "not being made",
        ),
        (lambda frames: [*frames[:5], steer("accepted"), *frames[5:]], "is no new id"),
        (lambda frames: [*frames[:5], PENDING, *frames[5:]], "resp_1 has not ended"),
        (lambda frames: [*frames[:5], BACK, *frames[5:]], "resp_1 has not ended"),
        (lambda frames: [*frames, {**BACK, "stream_id": "b"}], "is on another lane"),
        (lambda frames: [*frames, steer("enjoyed")], "there is no such event"),
        (lambda frames: [*frames[:3], *told("resp_3"), *frames[3:]], "the response before it on its lane has no end"),
        (lambda frames: [*frames, {"type": "error", "status": 400, "error": {}}], "error.type is missing"),
        (lambda frames: [{**each, "sequence_number": 7} for each in frames], "instead of 0"),
    ],
)
def test_what_is_not(broken: Callable[[list[Json]], list[Json]], why: str) -> None:
    assert any(why in fault for fault in check_socket(broken(steered()))), check_socket(broken(steered()))


def test_waiting_is_said_once_and_of_what_was_taken() -> None:
    first = told("resp_1")
    assert "was not taken" in check_socket([*first, PENDING])[0]
    twice = check_socket([*first[:3], steer("accepted"), *first[3:], PENDING, PENDING])
    assert "is said to wait twice" in twice[0]
