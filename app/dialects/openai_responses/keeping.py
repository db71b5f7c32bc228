"""What is kept of a response while it is made: its request, so that it can be begun again, and what was told of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct, structs

from app.dialects.openai_responses.events import Event, encode
from app.dialects.openai_responses.snapshot import SECRETS
from app.dialects.openai_responses.wire import CreateResponse
from app.turn.items import StoredItem

_LIFECYCLE = frozenset(
    f"response.{kind}" for kind in ("created", "queued", "in_progress", "completed", "incomplete", "failed")
)
_fields = msgspec.json.Decoder(dict[str, Raw])
_request = msgspec.json.Decoder(CreateResponse)


class _Told(Struct, frozen=True):
    response: Raw


class _Done(Struct, frozen=True):
    item: Raw


class _Identity(Struct, frozen=True):
    id: str


_identity = msgspec.json.Decoder(_Identity)
_told = msgspec.json.Decoder(_Told)
_done = msgspec.json.Decoder(_Done)


def keep(request: CreateResponse, *, secrets: bool) -> bytes:
    """The request as JSON. Without `secrets`, what opens somebody else's door is left out: headers, authorization."""
    if not secrets and request.tools:
        request = structs.replace(request, tools=[_harmless(tool) for tool in request.tools])
    return encode(request)


def kept(data: bytes | Raw) -> CreateResponse:
    """The request that was kept."""
    return _request.decode(data)


def fold(told: Sequence[Event]) -> bytes:
    """The response as JSON, as far as these events, which are all there are, tell it."""
    latest = next(event for event in reversed(told) if event.type in _LIFECYCLE)
    fields = _fields.decode(_told.decode(latest.data).response)
    items = b",".join([bytes(item.raw) for item in done_items(told)])
    return encode({**fields, "output": Raw(b"[%b]" % items)})


def done_items(told: Sequence[Event]) -> list[StoredItem]:
    """The items these events say are complete."""
    raws = [_done.decode(event.data).item.copy() for event in told if event.type == "response.output_item.done"]
    return [StoredItem(_identity.decode(raw).id, raw) for raw in raws]


def _harmless(tool: Raw) -> Raw:
    fields = _fields.decode(tool)
    return Raw(encode({name: value for name, value in fields.items() if name not in SECRETS}))
