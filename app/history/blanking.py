"""What is left of an item whose words are to be forgotten while others still build on it: its place, and nothing said.

A call stays a call and its result a result, by the same id, since a model takes one without the other for an error.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from app.responses.ports import StoredItem

ERASED: Final = "[erased]"

_CALLS: Final = {"function_call": ("arguments", "{}"), "custom_tool_call": ("input", "")}
_RESULTS: Final = ("function_call_output", "custom_tool_call_output")


class _Item(Struct):
    type: str = "message"
    role: str = "assistant"
    call_id: str | None = None
    name: str | None = None


_item = msgspec.json.Decoder(_Item)


def blank(item: StoredItem) -> StoredItem:
    """The item without what it said."""
    was = _item.decode(item.raw)
    made: dict[str, Any] = {"id": item.id, "type": was.type, "status": "completed"}
    if was.type in _CALLS:
        field, nothing = _CALLS[was.type]
        made |= {"call_id": was.call_id, "name": was.name, field: nothing}
    elif was.type in _RESULTS:
        made |= {"call_id": was.call_id, "output": ERASED}
    else:
        made |= {"type": "message", "role": was.role, "content": [_text(was.role)]}
    return StoredItem(item.id, msgspec.Raw(msgspec.json.encode(made)))


def _text(role: str) -> dict[str, Any]:
    if role == "assistant":
        return {"type": "output_text", "text": ERASED, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": ERASED}
