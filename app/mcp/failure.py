"""How this room says that a server did not do what it was asked: as a value the model and the client can be shown."""

from __future__ import annotations

from app.turn.items import ToolError

# JSON-RPC and MCP error codes we give ourselves.
CLOSED = -32000
TIMED_OUT = -32001
INVALID_PARAMS = -32602
INTERNAL = -32603
UNREADABLE = -32700


class McpFailure(Exception):
    """A request to a server came to nothing. `error` says why, without internals and secrets.

    `lost`: the session is no good any more. `refused`: the server provably did nothing, so asking again is safe.
    """

    def __init__(self, error: ToolError, *, lost: bool = False, refused: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.lost = lost
        self.refused = refused

    @property
    def silent(self) -> bool:
        """Whether the server did not answer at all: it is not there, hangs, hung up, or is broken as a whole."""
        error = self.error
        return (error.kind == "http_error" and error.code >= 500) or error.code in {CLOSED, TIMED_OUT}


def broken(message: str, code: int = INTERNAL, *, lost: bool = False) -> McpFailure:
    """The server broke the protocol, or the protocol says no."""
    return McpFailure(ToolError("mcp_protocol_error", message, code), lost=lost)


def clip(text: str, limit: int = 500) -> str:
    """Text of a stranger, short and on one line: it ends up in errors."""
    flat = " ".join(text[: limit * 2].split())
    return flat if len(flat) <= limit else f"{flat[:limit]}…"
