"""JSON-RPC messages, written and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from mcp import MCPError
from opentelemetry import propagate

from app.mcp.failure import CLOSED, UNREADABLE

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
