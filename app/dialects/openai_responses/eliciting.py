"""What tools ask users, and what users answer, as items.

Not a part of OpenAI's contract, and modelled on its approvals: a request ends the response, and its answer comes with
the next request. A call may ask several things at once; then each is an item, and all are answered together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from app.dialects.openai_responses.events import Event
from app.dialects.openai_responses.items import BY_MODEL
from app.dialects.openai_responses.kinds import kind_of
from app.dialects.openai_responses.output_items import Output
from app.dialects.openai_responses.wire import CreateResponse, ElicitationRequestItem, ElicitationResponseItem, Head
from app.turn.events import Elicited
from app.turn.ids import whole_of
from app.turn.items import Question, StoredItem, ToolError

REQUEST, RESPONSE = "mcp_elicitation_request", "mcp_elicitation_response"
# What the call that asks ends with; the one that goes on has the result.
ASKS_USER = ToolError(
    "mcp_protocol_error", "The tool asked the user for input. The call goes on once that is answered.", -32000
)

_head = msgspec.json.Decoder(Head)
_request = msgspec.json.Decoder(ElicitationRequestItem)
_response = msgspec.json.Decoder(ElicitationResponseItem)


class ElicitationAnswer(Struct, frozen=True):
    """A user's answer to the question `question_id`. `content` is JSON; `path` is where the request gives it."""

    question_id: str
    action: Literal["accept", "decline", "cancel"]
    content: Raw
    path: str


def elicitation_answers(items: Sequence[StoredItem], request: CreateResponse) -> tuple[ElicitationAnswer, ...]:
    """The answers to tools' questions that the request brings. `items` are what `input_items` made of it.

    As with approvals, what a model's item follows was answered then.
    """
    if not isinstance(request.input, list):
        return ()
    answers: list[ElicitationAnswer] = []
    for index, item in enumerate(items):
        kind = kind_of(item)
        if kind == RESPONSE:
            said = _response.decode(item.raw)
            answer = ElicitationAnswer(said.elicitation_request_id, said.action, said.content, f"input[{index}]")
            answers.append(answer)
        elif answers and (kind in BY_MODEL or _head.decode(item.raw).role == "assistant"):
            answers.clear()
    return tuple(answers)


def elicitation_labels(items: Sequence[StoredItem]) -> Mapping[str, str]:
    """The server that asked each of the questions among the items, by the id that all questions of a call share."""
    asked = (_request.decode(item.raw) for item in items if kind_of(item) == REQUEST)
    return {whole_of(request.id): request.server_label for request in asked}


def questions(output: Output, asked: Elicited, mcp_call_id: str) -> list[Event]:
    """What a call asks, item by item, each told at once."""
    events: list[Event] = []
    for question in asked.questions:
        item = {
            "id": question.id,
            "type": REQUEST,
            "server_label": asked.server_label,
            "name": asked.tool,
            "arguments": asked.arguments,
            "mcp_call_id": mcp_call_id,
            **_asked(question),
        }
        index, added = output.begin(item)
        events += [added, *output.end(index, item)]
    return events


def _asked(question: Question) -> dict[str, object]:
    how: dict[str, object] = (
        {"url": question.url} if question.url else {"requested_schema": Raw(question.schema.encode())}
    )
    return {"mode": "url" if question.url else "form", "message": question.message, **how}
