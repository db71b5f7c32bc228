"""Steering over a WebSocket: what a client has to say to a response that is being made, and what it is answered.

What is said becomes the input of the next response: of one that the server begins by itself, or, where the client owes
the results of calls, of the one that brings them. The answers have no place in the order of a response's events, so
their number is always 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct, structs

from app.dialects.openai_responses.events import encode
from app.dialects.openai_responses.faults import UNREADABLE, absent, read, wrong
from app.dialects.openai_responses.items import asks_to_compact, input_items
from app.dialects.openai_responses.wire import CreateResponse, Head
from app.turn.errors import InvalidRequest
from app.turn.ids import CountedIds

SteerFault: TypeAlias = Literal[
    "response_not_found",
    "invalid_input",
    "steering_not_supported",
    "too_many_pending_steers",
    "response_already_completed",
    "response_not_active",
    "successor_creation_failed",
]

_FIELDS = frozenset(("type", "previous_response_id", "input"))
_MEMBERS = frozenset(("type", "role", "content"))
_PARTS = frozenset(("input_text", "input_image", "input_file"))


class Steer(Struct, frozen=True, kw_only=True):
    """Something to say to a response. `beside` are members of the frame that have no business there."""

    previous_response_id: str
    input: Raw
    beside: tuple[str, ...] = ()


class _Frame(Struct, frozen=True):
    previous_response_id: str
    input: Raw


class _Call(Struct, frozen=True):
    """An item of an output that somebody may owe an answer to."""

    type: str
    id: str = ""
    call_id: str = ""
    name: str = ""
    status: str | None = None
    execution: str | None = None


_frame = msgspec.json.Decoder(_Frame)
_given = msgspec.json.Decoder(str | list[Raw])
_members = msgspec.json.Decoder(dict[str, Raw])
_parts = msgspec.json.Decoder(str | list[Raw])
_head = msgspec.json.Decoder(Head)
_call = msgspec.json.Decoder(_Call)
_encode = msgspec.json.Encoder().encode


# ── what is said ──────────────────────────────────────────────────────────────


def decode_steer(frame: bytes, members: Iterable[str]) -> Steer:
    """What a `response.steer` frame with these members says. Raises `InvalidRequest` when it cannot be told to whom."""
    told = read(_frame, frame)
    beside = tuple(name for name in members if name not in _FIELDS)
    return Steer(previous_response_id=told.previous_response_id, input=told.input.copy(), beside=beside)


def said(steer: Steer) -> tuple[Raw, ...]:
    """The messages that are to be the next input.

    Raises `InvalidRequest` with the path of what is wrong: only messages of the user's, of texts, images and files.
    """
    for name in steer.beside:
        raise InvalidRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    given = read(_given, steer.input, "input")
    if isinstance(given, str):
        return (Raw(_encode({"type": "message", "role": "user", "content": given})),)
    if not given:
        raise wrong("input", "there has to be something to say.")
    messages = tuple(_message(raw, f"input[{index}]") for index, raw in enumerate(given))
    input_items(CreateResponse(model="-", input=list(messages)), CountedIds())
    return messages


def _message(raw: Raw, path: str) -> Raw:
    members = read(_members, raw, path)
    for name in members:
        if name not in _MEMBERS:
            raise InvalidRequest(
                f"Unknown parameter: '{path}.{name}'.", param=f"{path}.{name}", code="unknown_parameter"
            )
    if members.get("type", Raw(b'"message"')) != Raw(b'"message"'):
        raise wrong(f"{path}.type", "steering takes messages only.")
    if members.get("role") != Raw(b'"user"'):
        raise wrong(f"{path}.role", "steering takes messages of the user's only.")
    if "content" not in members:
        raise absent(f"{path}.content")
    content = read(_parts, members["content"], f"{path}.content")
    for index, part in enumerate([] if isinstance(content, str) else content):
        where = f"{path}.content[{index}]"
        if read(_head, part, where).type not in _PARTS:
            raise wrong(f"{where}.type", "one of input_text, input_image, input_file is expected.")
    return Raw(_encode({"type": "message", **members}))


def why_not(request: CreateResponse, *, generate: bool) -> str | None:
    """Why a response to this request cannot be steered; None when it can."""
    if request.conversation_id is not None:
        return "A response in a conversation cannot be steered."
    if request.context_management or asks_to_compact(request):
        return "A response that may be compacted cannot be steered."
    if request.prompt is not None:
        # What comes after it would begin with the prompt again.
        return "A response to a stored prompt cannot be steered."
    return None if generate else "A response that says nothing cannot be steered."


# ── the next request ──────────────────────────────────────────────────────────


def successor(request: CreateResponse, response_id: str, messages: Sequence[Raw]) -> CreateResponse:
    """The request that goes on from the response to `request`, with these messages and all settings as they were."""
    return structs.replace(request, previous_response_id=response_id, input=list(messages))


def joined(request: CreateResponse, messages: Sequence[Raw]) -> CreateResponse:
    """The client's own next request with these messages before what it says itself. The answers to calls, which it
    begins with, stay at the calls: engines read nothing else between them."""
    given = request.input
    if isinstance(given, str):
        given = [Raw(_encode({"type": "message", "role": "user", "content": given}))]
    own = given or []
    answers = next((index for index, raw in enumerate(own) if not _is_answer(raw)), len(own))
    return structs.replace(request, input=[*own[:answers], *messages, *own[answers:]])


def _is_answer(raw: Raw) -> bool:
    try:
        kind = _head.decode(raw).type or ""
    except (msgspec.ValidationError, *UNREADABLE):
        # Whoever reads the request says so.
        return False
    return kind.endswith("_output") or kind in {"mcp_approval_response", "mcp_elicitation_response"}


# ── what is owed ──────────────────────────────────────────────────────────────


def required_input(output: Sequence[Raw]) -> tuple[dict[str, str], ...]:
    """What the client has to bring before a response with this output can be gone on from: stubs to be filled."""
    return tuple(stub for item in output if (stub := _stub(_call.decode(item))) is not None)


def _stub(call: _Call) -> dict[str, str] | None:
    if call.status == "incomplete":
        # Half a call is nothing that could be answered.
        return None
    match call.type:
        case "function_call":
            return {"type": "function_call_output", "call_id": call.call_id, "name": call.name}
        case "custom_tool_call" | "computer_call" | "shell_call" | "apply_patch_call":
            return {"type": f"{call.type}_output", "call_id": call.call_id}
        case "local_shell_call":
            return {"type": "local_shell_call_output", "id": call.call_id}
        case "tool_search_call" if call.execution == "client":
            return {"type": "tool_search_output", "call_id": call.call_id, "execution": "client"}
        case "mcp_approval_request":
            return {"type": "mcp_approval_response", "approval_request_id": call.id}
        case "mcp_elicitation_request":
            return {"type": "mcp_elicitation_response", "elicitation_request_id": call.id}
        case _:
            return None


# ── what is answered ──────────────────────────────────────────────────────────


def accepted(steer: Steer, steer_id: str, lane: str | None) -> str:
    """The input is the server's now."""
    return _frame_of("accepted", lane, steer={"id": steer_id, "previous_response_id": steer.previous_response_id})


def pending(steer: Steer, steer_id: str, required: Sequence[dict[str, str]], lane: str | None) -> str:
    """The response has ended, and the input waits for what the client has to bring."""
    named = {"id": steer_id, "previous_response_id": steer.previous_response_id}
    return _frame_of("pending", lane, reason="waiting_for_required_input", required_input=required, steer=named)


def failed(steer: Steer, steer_id: str | None, fault: SteerFault, error: InvalidRequest, lane: str | None) -> str:
    """The input is the client's again; `error` says why, and about what of it."""
    told = {"type": "invalid_request_error", "code": fault, "message": error.message, "param": error.param}
    given: dict[str, object] = {"previous_response_id": steer.previous_response_id, "input": steer.input}
    return _frame_of("failed", lane, error=told, steer=given if steer_id is None else {"id": steer_id, **given})


def _frame_of(kind: str, lane: str | None, **fields: object) -> str:
    event = {"type": f"response.steer.{kind}", "sequence_number": 0, **fields}
    return encode(event if lane is None else {**event, "stream_id": lane}).decode()
