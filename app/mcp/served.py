"""Tools, results and progress as the SDK's server sends them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from mcp import types
from mcp.server.context import ServerRequestContext

from app.mcp.client import Answer, Progress
from app.mcp.failure import McpFailure
from app.mcp.permits import NotPermitted
from app.turn.items import ToolSpec

# What is said in `_meta` of tools whose calls take a person's word, and of calls that wait for one.
APPROVAL = "shepherd/approval"


class Reports:
    """Passes progress on, in order, from calls that do not wait for that."""

    def __init__(self, context: ServerRequestContext[Any, Any]) -> None:
        self._context = context
        self._waiting: asyncio.Queue[Progress | None] = asyncio.Queue()
        self._passing = asyncio.create_task(self._pass_on())

    def note(self, progress: Progress) -> None:
        """Pass it on, some time."""
        self._waiting.put_nowait(progress)

    async def close(self) -> None:
        """Pass on what is left, and end."""
        self._waiting.put_nowait(None)
        try:
            await self._passing
        except asyncio.CancelledError:
            self._passing.cancel()
            raise

    async def _pass_on(self) -> None:
        while (progress := await self._waiting.get()) is not None:
            await self._context.session.report_progress(progress.done, progress.total, progress.message)


def refusal_of(failure: McpFailure) -> types.CallToolResult:
    """A call that came to nothing: for the model to read, and, where it waits for a person, for its client to know."""
    said: dict[str, Any] = {"content": [{"type": "text", "text": failure.error.message}], "isError": True}
    if isinstance(failure, NotPermitted):
        waiting = failure.waiting
        state = "pending" if waiting.word is None else "refused"
        about = {"id": waiting.approval.id, "state": state, "expires_at": waiting.approval.expires_at}
        said["_meta"] = {APPROVAL: about}
    return types.CallToolResult.model_validate(said)


def shown(name: str, spec: ToolSpec) -> types.Tool:
    """A tool as MCP clients see it."""
    notes = None if spec.annotations is None else msgspec.json.decode(spec.annotations)
    return types.Tool.model_validate(
        {
            "name": name,
            "description": spec.description,
            "inputSchema": msgspec.json.decode(spec.parameters),
            "annotations": notes,
            "_meta": {APPROVAL: {"state": "needed"}} if spec.approval == "ask" else None,
        }
    )


def result_of(answer: Answer) -> types.CallToolResult:
    """What a tool returned, as it was sent; what was too long, as far as it is shown."""
    if answer.cut:
        content: list[Any] = [{"type": "text", "text": answer.text}]
        structured = None
    else:
        content, structured = list(answer.content), answer.structured
    said = {"content": content, "structuredContent": structured, "isError": answer.is_error}
    return types.CallToolResult.model_validate(said)
