"""What the agent benchmark talks to: a scripted model that speaks chat and responses, and an MCP server.

`python -m bench.agent_peers model PORT DELAY_MS` and `python -m bench.agent_peers tools PORT DELAY_MS`.

The model reads `calls=N each=M` in the first user text. As long as the context holds fewer than N tool results it calls
`add`, M calls a turn; then it answers with twenty words. Every turn takes DELAY_MS, and so does every tool call.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer

WORDS = [f"word{index} " for index in range(20)]
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
RESPONSES_USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 120,
}
Send = Callable[[dict[str, Any]], Awaitable[None]]


def wanted(body: dict[str, Any]) -> tuple[int, int]:
    """How many calls to make now, and how many results the context holds."""
    found = re.search(r"calls=(\d+) each=(\d+)", json.dumps(body))
    items = body.get("messages") or body.get("input") or []
    results = [
        i for i in items if isinstance(i, dict) and (i.get("role") == "tool" or i.get("type") == "function_call_output")
    ]
    wants, each = (int(found.group(1)), int(found.group(2))) if found else (0, 1)
    return min(each, wants - len(results)), len(results)


def tool_name(body: dict[str, Any]) -> str:
    """The name under which `add` is offered."""
    for tool in body.get("tools") or []:
        name = tool.get("name") or tool.get("function", {}).get("name", "")
        if name.endswith("add"):
            return str(name)
    return "add"


def chat_chunks(body: dict[str, Any], calls: int, number: int) -> list[dict[str, Any]]:
    """The turn as chat-completion chunks."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    if calls:
        function = {"name": tool_name(body), "arguments": '{"a": 1, "b": 2}'}
        said = [
            {"index": n, "id": f"call_{number + n}", "type": "function", "function": function} for n in range(calls)
        ]
        chunks = [*(chunk({"role": "assistant", "tool_calls": [call]}) for call in said), chunk({}, "tool_calls")]
    else:
        chunks = [chunk({"role": "assistant", "content": word}) for word in WORDS] + [chunk({}, "stop")]
    return [*chunks, {**head, "choices": [], "usage": USAGE}]


def response_body(body: dict[str, Any], calls: int, number: int) -> dict[str, Any]:
    """The turn as a Responses object."""
    items: list[dict[str, Any]] = []
    for n in range(number, number + calls):
        call = {"id": f"fc_{n}", "type": "function_call", "call_id": f"call_{n}", "status": "completed"}
        items.append(call | {"name": tool_name(body), "arguments": '{"a": 1, "b": 2}'})
    if not items:
        content = [{"type": "output_text", "text": "".join(WORDS), "annotations": []}]
        items = [{"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}]
    head = {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": body["model"],
    }
    return {**head, "output": items, "usage": RESPONSES_USAGE, "tools": [], "parallel_tool_calls": True}


def response_events(full: dict[str, Any]) -> list[dict[str, Any]]:
    """The same, streamed."""
    start = {**full, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": start}]
    for index, item in enumerate(full["output"]):
        events += item_events(index, item)
    events.append({"type": "response.completed", "response": full})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def item_events(index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    """One item, streamed."""
    at = {"output_index": index, "item_id": item["id"]}
    empty = {**item, "status": "in_progress"}
    events: list[dict[str, Any]] = []
    if item["type"] == "function_call":
        events.append({"type": "response.output_item.added", "output_index": index, "item": {**empty, "arguments": ""}})
        events.append({"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]})
        events.append({"type": "response.function_call_arguments.done", **at, "arguments": item["arguments"]})
    else:
        part = {"type": "output_text", "text": "", "annotations": []}
        text = "".join(WORDS)
        events.append({"type": "response.output_item.added", "output_index": index, "item": {**empty, "content": []}})
        events.append({"type": "response.content_part.added", **at, "content_index": 0, "part": part})
        events += [{"type": "response.output_text.delta", **at, "content_index": 0, "delta": word} for word in WORDS]
        events.append({"type": "response.output_text.done", **at, "content_index": 0, "text": text})
        events.append({"type": "response.content_part.done", **at, "content_index": 0, "part": {**part, "text": text}})
    return [*events, {"type": "response.output_item.done", "output_index": index, "item": item}]


def model_app(delay: float) -> Callable[..., Awaitable[None]]:
    """The scripted model as an ASGI app."""

    async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send) -> None:
        if scope["type"] != "http":
            return None
        raw, more = b"", True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        if scope["path"].endswith("/models"):
            data = {"object": "list", "data": [{"id": "bench", "object": "model", "created": 1, "owned_by": "bench"}]}
            return await answer(send, [json.dumps(data).encode()], b"application/json")
        if not raw:
            return await answer(send, [b"{}"], b"application/json")
        body = json.loads(raw)
        calls, has = wanted(body)
        await asyncio.sleep(delay)
        if scope["path"].endswith("/responses"):
            full = response_body(body, calls, has)
            events = response_events(full) if body.get("stream") else []
            frames = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events]
        else:
            chunks = chat_chunks(body, calls, has)
            frames = [f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]
            full = {}
        if body.get("stream"):
            return await answer(send, [*frames, b"data: [DONE]\n\n"], b"text/event-stream")
        return await answer(send, [json.dumps(full).encode()], b"application/json")

    return app


async def answer(send: Send, frames: list[bytes], kind: bytes) -> None:
    """Send the frames, each on its own."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    for frame in frames:
        await send({"type": "http.response.body", "body": frame, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def tools_app(delay: float) -> Any:
    """The MCP server as an ASGI app."""
    server = MCPServer("bench")

    @server.tool()
    async def add(a: int, b: int) -> str:
        """Add two numbers."""
        await asyncio.sleep(delay)
        return str(a + b)

    return server.streamable_http_app(json_response=True)


def main() -> None:
    """Serve."""
    what, port, delay = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]) / 1000
    app = model_app(delay) if what == "model" else tools_app(delay)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="auto")


if __name__ == "__main__":
    main()
