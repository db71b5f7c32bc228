"""What engines say when they cannot: one reading for the many shapes of their error bodies."""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec
from msgspec import Raw, Struct

from app.dialects.openai_chat.wire import NULL, ErrorFields

_MAX_MESSAGE = 2000
_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size)|max_model_len|(prompt|input|request).{0,40}too (long|many tokens)"
    r"|longer than the model|too many (input )?tokens",
    re.IGNORECASE,
)

_fields = msgspec.json.Decoder(ErrorFields)
_any = msgspec.json.Decoder()


class EngineError(Struct, frozen=True):
    """What an engine said about a failure. `status` is the HTTP status it gave inside the body, where it did."""

    message: str | None = None
    code: str | None = None
    status: int | None = None


class EngineFault(Exception):
    """The engine reported an error inside its answer, or its answer makes no sense (`reported` is None)."""

    def __init__(self, message: str, reported: EngineError | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reported = reported


def read_error(body: bytes) -> EngineError:
    """The error in a body, however it is written; of a body that is no JSON object, its beginning as the message.

    A prompt that does not fit has the code `context_length_exceeded`, whatever the engine calls it.
    """
    fields = _decoded(body)
    if fields is None:
        text = _text(_string(body)) or body[:_MAX_MESSAGE].decode("utf-8", "replace").strip()
        # A web server's error page says nothing to the one who asked.
        return EngineError(None if text.startswith("<") else text or None)
    outer = _read(fields)
    if bytes(fields.error) == bytes(NULL):
        return outer
    inside = _decoded(fields.error)
    inner = EngineError(_text(_string(fields.error))) if inside is None else _read(inside)
    # OpenAI's shape is inside; what is outside only fills gaps.
    return EngineError(inner.message or outer.message, inner.code or outer.code, inner.status or outer.status)


def _decoded(body: bytes | Raw) -> ErrorFields | None:
    try:
        return _fields.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _read(fields: ErrorFields) -> EngineError:
    message = _text(fields.message) or _text(fields.detail)
    status = fields.code if isinstance(fields.code, int) and 400 <= fields.code <= 599 else None
    code = fields.code if isinstance(fields.code, str) and fields.code else None
    if code is not None and code.isdigit():
        status, code = int(code) if len(code) == 3 else None, None
    if fields.type == "exceed_context_size_error" or (message is not None and _TOO_LONG.search(message)):
        code = "context_length_exceeded"
    return EngineError(message, code, status)


def _string(body: bytes | Raw) -> Any:
    try:
        return _any.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    """A message as text: a string, or FastAPI's list of `{"loc": […], "msg": "…"}`."""
    if isinstance(value, list):
        value = "; ".join(filter(None, map(_complaint, cast("list[Any]", value))))
    return value[:_MAX_MESSAGE] if isinstance(value, str) and value else None


def _complaint(value: Any) -> str:
    if not isinstance(value, dict):
        return value if isinstance(value, str) else ""
    fields = cast("dict[str, Any]", value)
    where = ".".join(str(step) for step in fields.get("loc", ()))
    what = str(fields.get("msg", ""))
    return f"{where}: {what}" if where and what else what
