"""The Responses API over a WebSocket: what clients send, one JSON object a text frame, and what only a socket answers.

A frame of type `response.create` is the body of a request with an envelope around it: `stream_id` names a lane, and
`generate: false` asks for a response without output, to go on from. That the answer is streamed goes without saying.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from app.dialects.openai_responses.decode import decode_create
from app.dialects.openai_responses.events import Event, encode
from app.dialects.openai_responses.faults import UNREADABLE, absent, invalid, read, unparsable, wrong
from app.dialects.openai_responses.steering import Steer, decode_steer
from app.dialects.openai_responses.wire import CreateResponse, Head
from app.turn.errors import GatewayError, InvalidRequest

MAX_LANE = 256

LaneName = Annotated[str, Meta(min_length=1, max_length=MAX_LANE, pattern=r"^[A-Za-z0-9_.-]+\Z")]


class _Envelope(Struct, frozen=True, kw_only=True):
    """The members of a `response.create` frame that are not the request's."""

    stream_id: LaneName | None = None
    generate: bool | None = None
    stream: bool | None = None
    background: bool | None = None


class Create(Struct, frozen=True):
    """Make a response. `lane` is the `stream_id`; `size` the bytes the frame has."""

    request: CreateResponse
    lane: str | None
    generate: bool
    size: int


class Misfit(Exception):
    """A frame that cannot be acted on. `lane` is where it wanted to go, as far as that can be told."""

    def __init__(self, error: GatewayError, lane: str | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.lane = lane


_fields = msgspec.json.Decoder(dict[str, Raw])
_envelope = msgspec.json.Decoder(_Envelope)
_head = msgspec.json.Decoder(Head)
_name = msgspec.json.Decoder(LaneName)
_kind = msgspec.json.Decoder(str)


def decode_frame(text: str) -> Create | Steer:
    """What the client wants. Raises `Misfit`."""
    fields = _top(text)
    lane = _lane(fields)
    try:
        kind = read(_kind, fields["type"], "type") if "type" in fields else None
        if kind is None:
            raise absent("type")
        if kind == "response.steer":
            return decode_steer(text.encode(), fields)
        if kind != "response.create":
            why = "one of response.create, response.steer is expected."
            raise wrong("type", why)
        return _create(text, fields)
    except GatewayError as error:
        raise Misfit(error, lane) from None


def _top(text: str) -> dict[str, Raw]:
    try:
        return _fields.decode(text)
    except msgspec.ValidationError as error:
        raise Misfit(invalid(str(error))) from None
    except UNREADABLE as error:
        message = unparsable(error).replace("The body of the request", "The frame")
        raise Misfit(InvalidRequest(message, code="invalid_json")) from None


def _lane(fields: dict[str, Raw]) -> str | None:
    try:
        return _name.decode(fields["stream_id"]) if "stream_id" in fields else None
    except (msgspec.ValidationError, *UNREADABLE):
        return None


def _create(text: str, fields: dict[str, Raw]) -> Create:
    envelope = read(_envelope, text.encode())
    if envelope.stream is False:
        raise wrong("stream", "what comes over a WebSocket is always streamed; leave it out.")
    if envelope.background:
        raise wrong("background", "not over a WebSocket; ask for background responses with POST /v1/responses.")
    body = {name: raw for name, raw in fields.items() if name not in _AROUND}
    generate = envelope.generate is not False
    request = decode_create(msgspec.json.encode(body), needs_input=generate)
    if not generate:
        _check_empty(request)
    return Create(msgspec.structs.replace(request, stream=True), envelope.stream_id, generate, len(text))


def _check_empty(request: CreateResponse) -> None:
    """Raise `InvalidRequest` for input that asks for something to be done, which would not be."""
    for index, raw in enumerate(request.input if isinstance(request.input, list) else ()):
        if read(_head, raw, f"input[{index}]").type in _ACTS:
            raise wrong("generate", f"'input[{index}]' asks for something to be done; leave 'generate' out.")


_ACTS = frozenset(("mcp_approval_response", "mcp_elicitation_response", "compaction_trigger"))
_AROUND = frozenset(("type", "stream_id", "generate", "stream", "background"))


# ── what is answered ──────────────────────────────────────────────────────────


def event_frame(event: Event, lane: str | None) -> str:
    """An event as a text frame; one of a lane names it."""
    data = event.data if lane is None else b'%b,"stream_id":"%b"}' % (event.data[:-1], lane.encode())
    return data.decode()


def error_frame(error: GatewayError, kind: str, lane: str | None = None) -> str:
    """The envelope of an error that belongs to no event of a response. `kind` is the API's name for its kind."""
    detail = {"type": kind, "code": error.code or kind, "message": error.message, "param": error.param}
    around: dict[str, object] = {"type": "error", "status": error.status, "error": detail}
    return encode(around if lane is None else {**around, "stream_id": lane}).decode()
