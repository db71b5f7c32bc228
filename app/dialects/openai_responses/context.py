"""Stored items as the model sees them, and whether every call in them has its answer.

Calls the gateway made are stored one item each, call and result together, while the model saw the calls of one turn
side by side and then their results. Such calls share the stem of their id (`mcp_7f`, `mcp_7f_2`, `mcp_7f_3`), so that
the context can be put together again exactly as it was: the engine's prefix cache depends on it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
from msgspec import Raw

from app.dialects.openai_responses.wire import (
    NULL,
    FilePart,
    FunctionCallItem,
    FunctionCallOutputItem,
    Head,
    ImagePart,
    ListedTool,
    McpCallItem,
    McpErrorBody,
    McpListToolsItem,
    MessageItem,
    ReasoningItem,
    RefusalPart,
    TextPart,
)
from app.turn.errors import InvalidRequest
from app.turn.items import (
    File,
    Image,
    Item,
    Message,
    Opaque,
    OpaquePart,
    Part,
    Reasoning,
    Refusal,
    StoredItem,
    Text,
    ToolCall,
    ToolError,
    ToolListing,
    ToolResult,
    ToolSpec,
)

_STEM = re.compile(r"(.+?)(?:_\d{1,3})?\Z")

_head = msgspec.json.Decoder(Head)
_encode = msgspec.json.Encoder().encode


def nth_of_turn(stem: str, number: int) -> str:
    """The id of the `number`th call (from 1) of the turn whose first call has the id `stem`."""
    return stem if number == 1 else f"{stem}_{number}"


def to_items(stored: Sequence[StoredItem]) -> tuple[Item, ...]:
    """Stored items as the vocabulary. What this version does not know becomes `Opaque`; a call that was never finished
    is left out, since nothing can answer it."""
    items: list[Item] = []
    waiting: list[ToolResult] = []
    last = {_stem(item.id): index for index, item in enumerate(stored) if item.id.startswith("mcp_")}
    for index, item in enumerate(stored):
        for one in _item(item):
            if isinstance(one, ToolResult) and one.call_id == item.id:
                waiting.append(one)
            else:
                items.append(one)
        if waiting and last.get(_stem(item.id), index) == index:
            items += waiting
            waiting.clear()
    return (*items, *waiting)


def check_pairing(context: Sequence[Item], new: Sequence[Item]) -> None:
    """Raise `InvalidRequest(param="input")` when a result in `new` has no call before it, or a call has no result."""
    unanswered: Counter[str] = Counter()
    for position, item in enumerate((*context, *new)):
        if isinstance(item, ToolCall):
            unanswered[item.call_id] += 1
        elif isinstance(item, ToolResult):
            if unanswered[item.call_id] > 0:
                unanswered[item.call_id] -= 1
            elif position >= len(context):
                message = f"No tool call found for function call output with call_id {item.call_id}."
                raise InvalidRequest(message, param="input")
    for call_id in +unanswered:
        raise InvalidRequest(f"No tool output found for function call {call_id}.", param="input")


def _stem(identity: str) -> str:
    found = _STEM.match(identity)
    return found.group(1) if found else identity


def _item(stored: StoredItem) -> tuple[Item, ...]:
    kind = _head.decode(stored.raw).type or "message"
    known = _READERS.get(kind)
    if known is None:
        return (Opaque(kind, stored.raw),)
    decoder, reader = known
    return reader(decoder.decode(stored.raw))


def _message(wire: MessageItem) -> tuple[Item, ...]:
    content = (Text(wire.content),) if isinstance(wire.content, str) else tuple(map(_part, wire.content))
    return (Message(wire.role, content, wire.phase),)


def _function_call(wire: FunctionCallItem) -> tuple[Item, ...]:
    if wire.status in {"incomplete", "in_progress"}:
        return ()
    return (ToolCall(wire.call_id, wire.name, wire.arguments),)


def _function_call_output(wire: FunctionCallOutputItem) -> tuple[Item, ...]:
    output = wire.output if isinstance(wire.output, str) else tuple(map(_part, wire.output))
    return (ToolResult(wire.call_id, output),)


def _reasoning(wire: ReasoningItem) -> tuple[Item, ...]:
    text = "".join(block.text for block in wire.content or ())
    return (Reasoning(text, tuple(block.text for block in wire.summary or ()), wire.encrypted_content),)


def _listing(wire: McpListToolsItem) -> tuple[Item, ...]:
    tools = tuple(_listed(tool, wire.server_label) for tool in wire.tools)
    error = None if wire.error == NULL else ToolError("mcp_protocol_error", _as_text(wire.error))
    return (ToolListing(wire.server_label, tools, error),)


def _listed(tool: ListedTool, label: str) -> ToolSpec:
    return ToolSpec(
        name=tool.name,
        parameters=tool.input_schema,
        description=tool.description,
        server_label=label,
        tool=tool.name,
        annotations=None if tool.annotations == NULL else tool.annotations,
    )


def _mcp_call(wire: McpCallItem) -> tuple[Item, ...]:
    if wire.output is None and wire.error is None and wire.status not in {"completed", None}:
        return ()
    error = _error(wire.error)
    output: str | tuple[Part, ...] = wire.output if wire.output is not None else error.message if error else ""
    if wire.output_parts is not None:
        output = tuple(map(_part, wire.output_parts))
    call = ToolCall(wire.id, wire.name, wire.arguments, wire.server_label, wire.name)
    return (call, ToolResult(wire.id, output, error))


def _error(wire: McpErrorBody | str | None) -> ToolError | None:
    if wire is None:
        return None
    if isinstance(wire, str):
        return ToolError("mcp_protocol_error", wire)
    if wire.type == "http_error":
        return ToolError("http_error", wire.message, wire.code)
    if wire.type == "mcp_tool_execution_error":
        message = wire.message if wire.content == NULL else _as_text(wire.content)
        return ToolError("mcp_tool_execution_error", message, wire.code)
    return ToolError("mcp_protocol_error", wire.message, wire.code)


def _as_text(raw: Raw) -> str:
    """An error's free-form content: a string, the texts of a list of MCP content blocks, or else its JSON."""
    content = msgspec.json.decode(raw)
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        blocks = [cast("dict[str, Any]", block) for block in cast("list[Any]", content) if isinstance(block, dict)]
        return "\n".join(str(block["text"]) for block in blocks if "text" in block)
    return bytes(raw).decode()


def _part(raw: Raw) -> Part:
    kind = _head.decode(raw).type or ""
    known = _PARTS.get(kind)
    if known is None:
        return OpaquePart(kind, raw)
    decoder, reader = known
    return reader(decoder.decode(raw)) or OpaquePart(kind, raw)


def _text(wire: TextPart) -> Part:
    return Text(wire.text)


def _refusal(wire: RefusalPart) -> Part:
    return Refusal(wire.refusal)


def _image(wire: ImagePart) -> Part | None:
    return None if wire.image_url is None else Image(wire.image_url, wire.detail)


def _file(wire: FilePart) -> Part:
    return File(data=wire.file_data, url=wire.file_url, file_id=wire.file_id, filename=wire.filename)


def part_to_wire(part: Part) -> Raw:
    """A part of a tool's result as an input part."""
    match part:
        case Text() | Refusal():
            return Raw(_encode({"type": "input_text", "text": part.text}))
        case Image():
            detail = {"detail": part.detail or "auto"}
            return Raw(_encode({"type": "input_image", "image_url": part.url, **detail}))
        case File():
            fields = {
                "file_data": part.data,
                "file_url": part.url,
                "file_id": part.file_id,
                "filename": part.filename,
            }
            return Raw(_encode({"type": "input_file", **{key: each for key, each in fields.items() if each}}))
        case OpaquePart():
            return part.raw


_READERS: dict[str, tuple[msgspec.json.Decoder[Any], Callable[[Any], tuple[Item, ...]]]] = {
    "message": (msgspec.json.Decoder(MessageItem), _message),
    "function_call": (msgspec.json.Decoder(FunctionCallItem), _function_call),
    "function_call_output": (msgspec.json.Decoder(FunctionCallOutputItem), _function_call_output),
    "reasoning": (msgspec.json.Decoder(ReasoningItem), _reasoning),
    "mcp_list_tools": (msgspec.json.Decoder(McpListToolsItem), _listing),
    "mcp_call": (msgspec.json.Decoder(McpCallItem), _mcp_call),
}

_PARTS: dict[str, tuple[msgspec.json.Decoder[Any], Callable[[Any], Part | None]]] = {
    "input_text": (msgspec.json.Decoder(TextPart), _text),
    "output_text": (msgspec.json.Decoder(TextPart), _text),
    "text": (msgspec.json.Decoder(TextPart), _text),
    "refusal": (msgspec.json.Decoder(RefusalPart), _refusal),
    "input_image": (msgspec.json.Decoder(ImagePart), _image),
    "input_file": (msgspec.json.Decoder(FilePart), _file),
}
