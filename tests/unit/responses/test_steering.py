"""What becomes of what is said to a response of a connection."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from app.dialects.openai_responses import frames
from app.dialects.openai_responses.frames import Create
from app.dialects.openai_responses.steering import Steer
from app.responses.lanes import Bounds
from app.responses.steering import MADE, GivenBack, Refused, Steering, Waiting, Work, not_made

CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "status": "completed"}


def create(**fields: Any) -> Create:
    frame = frames.decode_frame(msgspec.json.encode({"type": "response.create", "model": "m", **fields}).decode())
    assert isinstance(frame, Create)
    return frame


def steer(response_id: str, given: object = "more") -> Steer:
    return Steer(previous_response_id=response_id, input=Raw(msgspec.json.encode(given)))


class Line:
    """A connection's steering with a response `resp_1` in the making."""

    def __init__(self, bounds: Bounds | None = None, max_bytes: int = 1000, **fields: Any) -> None:
        self.steering = Steering(max_bytes, bounds or Bounds())
        self.numbers = count(1)
        self.steering.began("resp_1", Work(create(input="x", **fields)))

    def say(self, given: object = "more", to: str = "resp_1") -> str:
        return self.steering.take(steer(to, given), lambda: f"steer_{next(self.numbers)}").id

    def refused(self, given: object = "more", to: str = "resp_1") -> str:
        with pytest.raises(Refused) as refusal:
            self.say(given, to)
        return refusal.value.fault

    def ended(self, *output: dict[str, Any]) -> Any:
        return self.steering.ended("resp_1", lambda: [Raw(msgspec.json.encode(item)) for item in output])


def said(work: Work) -> list[Any]:
    assert isinstance(work.asked.request.input, list)
    return [msgspec.json.decode(raw) for raw in work.asked.request.input]


def test_what_was_said_is_the_successors_input_in_order_and_all_else_stays() -> None:
    line = Line(temperature=0.5, stream_id="a", instructions="Be brief.")
    line.say("one")
    line.say([{"role": "user", "content": "two"}])
    work = line.ended({"type": "message"})
    assert isinstance(work, Work)
    assert work.automatic
    assert [each["content"] for each in said(work)] == ["one", "two"]
    request = work.asked.request
    assert (request.previous_response_id, request.temperature, request.instructions) == ("resp_1", 0.5, "Be brief.")
    assert work.asked.lane == "a"
    assert line.refused() == "response_already_completed"


def test_nothing_said_nothing_follows() -> None:
    assert Line().ended(CALL) is None


@pytest.mark.parametrize(
    ("item", "stub"),
    [
        (CALL, {"type": "function_call_output", "call_id": "c1", "name": "look"}),
        ({**CALL, "type": "custom_tool_call"}, {"type": "custom_tool_call_output", "call_id": "c1"}),
        ({**CALL, "type": "shell_call"}, {"type": "shell_call_output", "call_id": "c1"}),
        ({**CALL, "type": "apply_patch_call"}, {"type": "apply_patch_call_output", "call_id": "c1"}),
        ({**CALL, "type": "computer_call"}, {"type": "computer_call_output", "call_id": "c1"}),
        ({**CALL, "type": "local_shell_call"}, {"type": "local_shell_call_output", "id": "c1"}),
        (
            {**CALL, "type": "tool_search_call", "execution": "client"},
            {"type": "tool_search_output", "call_id": "c1", "execution": "client"},
        ),
        (
            {"type": "mcp_approval_request", "id": "mcpr_1"},
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1"},
        ),
    ],
)
def test_what_the_client_owes_has_a_stub(item: dict[str, Any], stub: dict[str, str]) -> None:
    line = Line()
    name = line.say()
    then = line.ended({"type": "message"}, item)
    assert isinstance(then, Waiting)
    assert ([each.id for each in then.said], then.required) == ([name], (stub,))


@pytest.mark.parametrize(
    "item", [{**CALL, "status": "incomplete"}, {**CALL, "type": "tool_search_call"}, {**CALL, "type": "mcp_call"}]
)
def test_what_nobody_owes_is_not_waited_for(item: dict[str, Any]) -> None:
    line = Line()
    line.say()
    assert isinstance(line.ended(item), Work)


def test_what_waits_comes_behind_the_results_and_before_the_rest() -> None:
    line = Line(stream_id="a")
    line.say("more")
    line.ended(CALL)
    result = {"type": "function_call_output", "call_id": "c1", "output": "x"}
    own = [result, {"role": "user", "content": "and"}]
    elsewhere = create(previous_response_id="resp_1", input=own, stream_id="b")
    assert line.steering.joined(elsewhere) == Work(elsewhere)
    work = line.steering.joined(create(previous_response_id="resp_1", input=own, stream_id="a", temperature=1))
    assert [each.get("content") for each in said(work)] == [None, "more", "and"]
    assert work.asked.request.temperature == 1
    assert not work.automatic
    again = create(previous_response_id="resp_1", input=own, stream_id="a")
    assert line.steering.joined(again) == Work(again)
    back = not_made(work, "it rained")
    assert back is not None
    assert (back.fault, back.said) == ("successor_creation_failed", work.carried)


def test_nonsense_beside_it_is_left_for_who_reads_the_request() -> None:
    line = Line()
    line.say("more")
    line.ended(CALL)
    work = line.steering.joined(create(previous_response_id="resp_1", input=[7]))
    assert said(work)[1] == 7


def test_a_failed_response_gives_back() -> None:
    line = Line()
    name = line.say()
    back = line.steering.failed("resp_1")
    assert isinstance(back, GivenBack)
    assert [each.id for each in back.said] == [name]
    assert line.refused() == "response_not_active"
    assert line.steering.failed("resp_2") is None


def test_what_is_refused() -> None:
    assert Line().refused(to="resp_2") == "response_not_found"
    assert Line().refused([]) == "invalid_input"
    assert Line(conversation="conv_1").refused() == "steering_not_supported"
    assert Line(context_management=[{"type": "compaction"}]).refused() == "steering_not_supported"
    assert Line(prompt={"id": "pmpt_1"}).refused() == "steering_not_supported"
    assert Line(generate=False).refused() == "steering_not_supported"
    assert Line(max_bytes=5).refused() == "too_many_pending_steers"
    line = Line(Bounds(steers=1))
    line.say()
    assert line.refused() == "too_many_pending_steers"


def test_what_is_over_is_forgotten_and_what_waits_is_not() -> None:
    line = Line()
    line.say()
    line.ended(CALL)
    for number in range(2, MADE + 9):
        line.steering.began(f"resp_{number}", Work(create(input="x")))
        line.steering.ended(f"resp_{number}", list)
    assert line.refused(to="resp_2") == "response_not_found"
    assert line.refused(to=f"resp_{MADE}") == "response_already_completed"
    assert line.steering.joined(create(previous_response_id="resp_1", input="x")).carried
