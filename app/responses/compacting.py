"""Compacting on its own: a window that stands for a conversation, for the client to go on from.

It is the response that a `compaction_trigger` asks for, made and not stored, with what people said put before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct, structs

from app.dialects.openai_responses.kinds import kind_of
from app.dialects.openai_responses.wire import CreateResponse, MessageItem
from app.responses.circumstances import Circumstances
from app.responses.following import Followed
from app.responses.ports import StoredItem
from app.turn.errors import GatewayError

_TRIGGER = Raw(b'{"type":"compaction_trigger"}')

_encode = msgspec.json.Encoder().encode
_message = msgspec.json.Decoder(MessageItem)


class _Failure(Struct, frozen=True):
    code: str
    message: str


class _Made(Struct, frozen=True):
    id: str
    created_at: int
    status: str
    usage: dict[str, Any] | None = None
    error: _Failure | None = None


_made = msgspec.json.Decoder(_Made)


class Maker(Protocol):
    """What makes responses."""

    async def create(
        self, tenant: str, request: CreateResponse, principal: str, circumstances: Circumstances
    ) -> Followed: ...


async def compact(
    responses: Maker, tenant: str, principal: str, request: CreateResponse, circumstances: Circumstances
) -> bytes:
    """The compacted window as JSON. Raises what making a response raises, and what went wrong while it was made."""
    asked = structs.replace(request, input=[*_given(request), _TRIGGER], store=False, stream=False)
    run = await responses.create(tenant, asked, principal, circumstances)
    made = _made.decode(await run.result())
    if made.status != "completed":
        failure = made.error or _Failure("compaction_failed", "The summary of the conversation was cut off.")
        raise GatewayError(failure.message, code=failure.code, status=502)
    items = run.items()
    window = [*spoken(items), *(item for item in items[-1:] if _kind(item) == "compaction")]
    return _encode(
        {
            "id": made.id,
            "object": "response.compaction",
            "created_at": made.created_at,
            "output": [item.raw for item in window],
            "usage": made.usage,
        }
    )


def spoken(items: Sequence[StoredItem]) -> list[StoredItem]:
    """The messages that are not the model's own: what they say is not in the summary."""
    return [item for item in items if _kind(item) == "message" and _message.decode(item.raw).role != "assistant"]


def _kind(item: StoredItem) -> str:
    return kind_of(item) or "message"


def _given(request: CreateResponse) -> list[Raw]:
    if isinstance(request.input, str):
        return [Raw(_encode({"type": "message", "role": "user", "content": request.input}))]
    return request.input or []
