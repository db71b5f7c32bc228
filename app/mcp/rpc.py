"""JSON-RPC messages, written and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from mcp import MCPError
from opentelemetry import propagate

from app.mcp.failure import CLOSED, UNREADABLE

_MOST_PARTS: Final = 10_000

encoded: Final = msgspec.json.Encoder().encode


def request_of(request_id: int, method: str, params: Mapping[str, Any] | None, *, told: bool) -> dict[str, Any]:
    """A request, with the trace it belongs to; `told`: of progress, by its id."""
    sent: dict[str, Any] = dict(params or {})
    meta: dict[str, Any] = dict(sent.get("_meta") or {})
    if told:
        meta["progressToken"] = request_id
    propagate.inject(meta)
    if meta:
        sent["_meta"] = meta
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method}
    return {**message, "params": sent} if sent else message


def decoded(data: str | bytes) -> dict[str, Any]:
    """A message. Raises `MCPError`."""
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MCPError(UNREADABLE, "The answer is not JSON-RPC.") from None


def result_in(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The result of an answer. Raises `MCPError`: the answer's own, or for one that has none, or one of too many parts.

    What the SDK makes of each part costs a hundred times what reading it does, while nobody else is served.
    """
    if "error" in answer:
        raise as_error(answer["error"])
    result = answer.get("result")
    if not isinstance(result, dict):
        raise MCPError(UNREADABLE, "The answer has no result.")
    found = cast("dict[str, Any]", result)
    if any(isinstance(each, list) and len(cast("list[Any]", each)) > _MOST_PARTS for each in found.values()):
        raise MCPError(UNREADABLE, f"The answer has more than {_MOST_PARTS} parts.")
    return found


def as_error(error: Any) -> MCPError:
    """The error in an answer."""
    match error:
        case {"code": int() as code, "message": str() as message}:
            return MCPError(code, message, error.get("data"))
        case _:
            return MCPError(UNREADABLE, "The answer is an error that says nothing.")


def closed() -> MCPError:
    """The session is over."""
    return MCPError(CLOSED, "Connection closed")
