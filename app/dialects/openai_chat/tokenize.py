"""Asking an engine how long a turn's prompt is, as vLLM is asked: `POST /tokenize` with the turn's messages and tools.

The engine renders them with its own chat template, so this is what a turn would cost, to the token.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from app.dialects.openai_chat.call import Quirks, encode_request
from app.turn.request import TurnRequest

# What of a chat request shapes the prompt.
_SHAPE = (
    "model",
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "chat_template_kwargs",
    "mm_processor_kwargs",
)

_fields = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


class _Tokenized(Struct, frozen=True):
    count: int


_tokenized = msgspec.json.Decoder(_Tokenized)


def encode_tokenize(request: TurnRequest, model: str, quirks: Quirks) -> bytes:
    """The body of the question. Raises what `encode_request` raises."""
    said = {"add_generation_prompt": Raw(b"true"), **_fields.decode(encode_request(request, model, quirks))}
    return _encode({name: said[name] for name in _SHAPE if name in said})


def decode_tokenize(body: bytes) -> int | None:
    """The number of tokens; None for an answer that does not say: other engines have another `/tokenize`."""
    try:
        return _tokenized.decode(body).count
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
