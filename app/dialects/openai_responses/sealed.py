"""What the gateway seals into items and clients carry for it: thoughts, and summaries of conversations.

Whoever holds an item may be anyone, and may bring it to another server. So the content is encrypted by whoever seals,
and what nobody here has sealed is refused when it comes in, not passed on to a model that cannot read it either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from app.dialects.openai_responses.wire import CreateResponse
from app.turn.items import StoredItem


class Sealed(Struct, frozen=True):
    """The inside of `encrypted_content`."""

    kind: Literal["reasoning", "compaction"]
    text: str


# From content to a token, and back; None for a token that was not sealed here.
Seal: TypeAlias = Callable[[Sealed], str]
Unseal: TypeAlias = Callable[[str], Sealed | None]

# Both may be written with escapes, but by nobody who wants an answer.
_WORDS = (b"encrypted_content", b"compaction")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Sealed).decode


def carries_tokens(request: CreateResponse, context: Sequence[StoredItem]) -> bool:
    """Whether something may have to be sealed or opened for the request, which builds on `context`.

    Of a request that stores nothing it is looked up, so that it needs no database for what it does not use.
    """
    if request.store is not False or request.context_management:
        return True
    if "reasoning.encrypted_content" in (request.include or ()):
        return True
    given = request.input if isinstance(request.input, list) else ()
    return any(word in bytes(raw) for raw in (*given, *(item.raw for item in context)) for word in _WORDS)


def nobody(_token: str) -> Sealed | None:
    """Opens nothing."""
    return None


def pack(content: Sealed) -> bytes:
    """What is sealed."""
    return _encode(content)


def unpack(plain: bytes | None) -> Sealed | None:
    """What was sealed; None when there is nothing, or nothing that makes sense."""
    if plain is None:
        return None
    try:
        return _decode(plain)
    except msgspec.DecodeError:
        return None
