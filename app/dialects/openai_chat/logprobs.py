"""Log probabilities of text, from chat's shape to the one the vocabulary carries (the Responses API's)."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from app.dialects.openai_chat.wire import Logprobs, TokenLogprob, TopLogprob

_decoder = msgspec.json.Decoder(Logprobs)
_encode = msgspec.json.Encoder().encode

# The API's number for "as good as impossible", which engines send as null or leave out.
_NEVER = -9999.0


class LogprobTail:
    """Tokens whose text has not been told yet: a token may be half a character, and its text comes with the next."""

    def __init__(self) -> None:
        self._tokens: list[dict[str, Any]] = []

    def add(self, raw: Raw) -> None:
        """Take a chunk's `logprobs`. Ones in another shape are left out: the text is worth more than they are."""
        try:
            content = _decoder.decode(raw).content
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        self._tokens += [_token(token) for token in content or ()]

    def clear(self) -> None:
        """Forget them."""
        self._tokens.clear()

    def take(self) -> Raw | None:
        """All of them, as a JSON array; None when there are none."""
        if not self._tokens:
            return None
        taken = Raw(_encode(self._tokens))
        self._tokens.clear()
        return taken


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {**_entry(token), "top_logprobs": [_entry(other) for other in token.top_logprobs or ()]}


def _entry(token: TokenLogprob | TopLogprob) -> dict[str, Any]:
    spelled = list(token.token.encode("utf-8", "replace")) if token.bytes is None else token.bytes
    return {"token": token.token, "logprob": _NEVER if token.logprob is None else token.logprob, "bytes": spelled}
