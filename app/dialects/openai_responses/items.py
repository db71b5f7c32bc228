"""Input items on their way in: checked, given an id, and made into what is stored and listed.

Nothing a client said is lost: an item keeps every field it came with, known or not; only what the API fills in itself
(id, status, content as a list) is added.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from app.dialects.openai_responses import not_yet
from app.dialects.openai_responses.faults import absent, read, wrong
from app.dialects.openai_responses.wire import (
    CreateResponse,
    FilePart,
    FunctionCallItem,
    FunctionCallOutputItem,
    Head,
    ImagePart,
    McpCallItem,
    McpListToolsItem,
    MessageItem,
    ReasoningItem,
    RefusalPart,
    TextPart,
)
from app.turn.errors import InvalidRequest
from app.turn.ids import IdSource, is_well_formed
from app.turn.items import StoredItem

# How the API's ids begin. Other kinds of items get `item_`.
PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "mcp_list_tools": "mcpl",
    "mcp_call": "mcp",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcpa",
    "web_search_call": "ws",
    "file_search_call": "fs",
    "code_interpreter_call": "ci",
    "image_generation_call": "ig",
    "computer_call": "cu",
    "computer_call_output": "cuo",
    "shell_call": "sh",
    "shell_call_output": "sho",
    "local_shell_call": "lsh",
    "local_shell_call_output": "lsho",
    "apply_patch_call": "apc",
    "apply_patch_call_output": "apco",
    "tool_search_call": "tsc",
    "tool_search_output": "tso",
    "compaction": "cmp",
}

_HAVE_STATUS = frozenset(("message", "function_call", "function_call_output"))
_COMPLETED = Raw(b'"completed"')

_head = msgspec.json.Decoder(Head)
_fields = msgspec.json.Decoder(dict[str, Raw])
_message = msgspec.json.Decoder(MessageItem)
_output = msgspec.json.Decoder(FunctionCallOutputItem)
_encode = msgspec.json.Encoder().encode

_ITEMS: dict[str, msgspec.json.Decoder[Any]] = {
    "message": _message,
    "function_call": msgspec.json.Decoder(FunctionCallItem),
    "function_call_output": _output,
    "reasoning": msgspec.json.Decoder(ReasoningItem),
    "mcp_list_tools": msgspec.json.Decoder(McpListToolsItem),
}
_mcp_call = msgspec.json.Decoder(McpCallItem)

_text = msgspec.json.Decoder(TextPart)
_PARTS: dict[str, msgspec.json.Decoder[Any]] = {
    "input_text": _text,
    "output_text": _text,
    "text": _text,
    "refusal": msgspec.json.Decoder(RefusalPart),
    "input_image": msgspec.json.Decoder(ImagePart),
    "input_file": msgspec.json.Decoder(FilePart),
}


def input_items(request: CreateResponse, ids: IdSource) -> tuple[StoredItem, ...]:
    """The request's own input as stored items: each with an id, messages with a status and a list of parts.

    Raises `InvalidRequest` with the path of the wrong field (`input[0].role`), or for an id given twice.
    """
    given = request.input
    if given is None:
        return ()
    if isinstance(given, str):
        identity = ids.new("msg")
        content = [{"type": "input_text", "text": given}]
        message = {"id": identity, "type": "message", "status": "completed", "role": "user", "content": content}
        return (StoredItem(identity, Raw(_encode(message))),)
    stored = tuple(_stored(raw, f"input[{index}]", ids) for index, raw in enumerate(given))
    seen: set[str] = set()
    for item in stored:
        if item.id in seen:
            message = f"There is more than one item with id '{item.id}'. Remove the duplicates and try again."
            raise InvalidRequest(message, param="input")
        seen.add(item.id)
    return stored


def _stored(raw: Raw, path: str, ids: IdSource) -> StoredItem:
    head = read(_head, raw, path)
    kind = _kind(head, path)
    if kind in not_yet.ITEMS:
        raise not_yet.refuse(f"{path}.type" if head.type else path, f"It is about items of type '{kind}'.")
    fields = read(_fields, raw, path)
    identity = head.id if head.id is not None and is_well_formed(head.id) else ids.new(PREFIXES.get(kind, "item"))
    given: dict[str, Raw] = {"id": Raw(_encode(identity)), "type": Raw(_encode(kind))}
    if kind in _HAVE_STATUS and fields.get("status") in (None, Raw(b"null")):
        given["status"] = _COMPLETED
    whole = {**given, **fields, **given}
    if kind in _ITEMS:
        body = read(_ITEMS[kind], raw, path)
        if isinstance(body, MessageItem):
            whole["content"] = _content(body, path, whole["content"])
        elif isinstance(body, FunctionCallOutputItem) and not isinstance(body.output, str):
            _check_parts(body.output, f"{path}.output")
    elif kind == "mcp_call":
        read(_mcp_call, Raw(_encode(whole)), path)
    return StoredItem(identity, Raw(_encode(whole)))


def _kind(head: Head, path: str) -> str:
    if head.type is not None:
        return head.type
    if head.role is not None:
        return "message"
    if head.id is not None:
        return "item_reference"
    raise absent(f"{path}.type")


def _content(message: MessageItem, path: str, raw: Raw) -> Raw:
    if not isinstance(message.content, str):
        _check_parts(message.content, f"{path}.content")
        return raw
    part: dict[str, object] = {"type": "input_text", "text": message.content}
    if message.role == "assistant":
        part = {"type": "output_text", "text": message.content, "annotations": []}
    return Raw(_encode([part]))


def _check_parts(parts: list[Raw], path: str) -> None:
    for index, raw in enumerate(parts):
        where = f"{path}[{index}]"
        kind = read(_head, raw, where).type
        if kind is None:
            raise absent(f"{where}.type")
        if kind not in _PARTS:
            continue
        part = read(_PARTS[kind], raw, where)
        if isinstance(part, ImagePart) and not part.image_url:
            if part.file_id:
                raise not_yet.refuse(f"{where}.file_id", "Give the image as a URL or a data: URL.")
            raise absent(f"{where}.image_url")
        if isinstance(part, FilePart) and not (part.file_data or part.file_url or part.file_id):
            raise wrong(where, "one of 'file_data' and 'file_url' is expected.")
