"""What the encoder says, held against what others wrote: the Open Responses schemas and the openai SDK."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from openai import omit
from openai._models import construct_type_unchecked
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from app.dialects.openai_responses.check import check_events
from app.turn.errors import Failure
from app.turn.events import CallDelta, Finish, ItemDone, LoopEvent, ReasoningDelta, RefusalDelta, TextDelta
from app.turn.items import Reasoning, Refusal, ToolCall, ToolError, ToolSpec
from tests.support.open_responses import event_faults, faults
from tests.unit.dialects.telling import COMPLETED, USAGE, Telling, answered, asked, called, delta, listed, message

LOGPROBS = Raw(b'[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-2,"bytes":[98]}]}]')

# A run of everything the open contract has words for.
OPEN: list[LoopEvent] = [
    ReasoningDelta("hm"),
    ItemDone(Reasoning("hm, yes", ("thought",))),
    TextDelta("Look", LOGPROBS),
    RefusalDelta("no"),
    message("Look", Refusal("no")),
    message("now", phase="final_answer"),
    CallDelta("c1", "look", '{"a":'),
    ItemDone(ToolCall("c1", "look", '{"a":1}')),
    ItemDone(ToolCall("c2", "look", "{}")),
]
# And of what only the other one has.
MCP: list[LoopEvent] = [
    *listed(ToolSpec("add", Raw(b'{"type":"object"}'), "Adds.")),
    *listed(label="dead", error=ToolError("http_error", "gone", 502)),
    delta("c1", "{"),
    delta("c2", "{}"),
    called("c1"),
    called("c2"),
    asked("c1"),
    asked("c2"),
    answered("c2", "x", ToolError("mcp_tool_execution_error", "x")),
    answered("c1"),
    TextDelta("so"),
    message("so it is"),
]
ENDS = [
    COMPLETED,
    Finish("incomplete", USAGE, "max_output_tokens"),
    Finish("failed", USAGE, failure=Failure(502, "upstream_error", "it broke")),
]
REQUEST: dict[str, Any] = {
    "tools": [Raw(b'{"type":"function","name":"look"}')],
    "tool_choice": Raw(b'{"type":"function","name":"look"}'),
    "instructions": "be brief",
    "metadata": {"a": "b"},
    "max_output_tokens": 20,
}


@pytest.mark.parametrize("finish", ENDS)
@pytest.mark.parametrize("cut", range(len(OPEN) + 1))
def test_the_open_contract_has_nothing_against_it(finish: Finish, cut: int) -> None:
    """Wherever the run is cut: every event and the response are what the schemas say."""
    telling = Telling("openresponses", **REQUEST)
    telling.say(*OPEN[:cut])
    telling.end(finish)
    assert [fault for event in telling.told for fault in event_faults(event)] == []
    assert faults("ResponseResource", telling.body) == []
    if finish.status != "completed" or not [item for item in telling.output if item["status"] == "incomplete"]:
        assert check_events(telling.told, "openresponses") == []


def accumulate(events: list[dict[str, Any]]) -> tuple[list[Any], Any]:
    """The SDK's own events for these, and the response it puts together."""
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    said: list[Any] = []
    for event in events:
        said += state.handle_event(construct_type_unchecked(type_=ResponseStreamEvent, value=event))
    return said, state._completed_response


@pytest.mark.parametrize("run", [OPEN, MCP, [*MCP, *OPEN]], ids=["open", "mcp", "both"])
def test_the_sdk_puts_the_same_response_together(run: list[LoopEvent]) -> None:
    telling = Telling()
    telling.say(*run)
    telling.end()
    said, response = accumulate(telling.told)
    assert len(said) == len(telling.told)
    assert {type(event).__name__ for event in said} >= {"ResponseCreatedEvent", "ResponseCompletedEvent"}
    assert [item.id for item in response.output] == [item["id"] for item in telling.output]
    heard = [event for event in said if event.type == "response.output_text.delta"]
    snapshots = {(event.output_index, event.content_index): event.snapshot for event in heard}
    messages = [item for item in response.output if item.type == "message"]
    texts = [part.text for item in messages for part in item.content if part.type == "output_text"]
    assert texts == list(snapshots.values())
    assert check_events(telling.told) == []


@pytest.mark.parametrize("finish", ENDS)
def test_the_sdk_reads_the_response_strictly(finish: Finish) -> None:
    """The SDK constructs without validating; its models, asked to validate, have nothing against it either."""
    telling = Telling(**REQUEST)
    telling.say(*MCP, *OPEN)
    telling.end(finish)
    body = telling.body
    if body["error"] is not None:
        # The model lists the codes of OpenAI's own servers; ours say more.
        body["error"]["code"] = "server_error"
    Response.model_validate(body, strict=True)
