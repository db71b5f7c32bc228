"""Custom tools as engines know them that have them: free text under a grammar, which the engine sees to.

Everywhere else here a custom tool is a function with one string, `input`; these are the ways there and back.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from app.turn.items import ToolCall, ToolSpec

# What the arguments that stand for a text begin and end with.
BEGIN, END = '{"input":"', '"}'

_encode = msgspec.json.Encoder().encode


class _Format(Struct, frozen=True):
    syntax: str
    definition: str


class _Arguments(Struct, frozen=True):
    input: str


_format = msgspec.json.Decoder(_Format)
_arguments = msgspec.json.Decoder(_Arguments)


def offered(tool: ToolSpec) -> dict[str, Any]:
    """A custom tool, to be chosen from."""
    custom: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        custom["description"] = tool.description
    if tool.grammar is not None:
        given = _format.decode(tool.grammar)
        grammar = {"syntax": given.syntax, "definition": given.definition}
        custom["format"] = {"type": "grammar", "grammar": grammar}
    return {"type": "custom", "custom": custom}


def called(call: ToolCall) -> dict[str, Any]:
    """A call of a custom tool, as the model made it."""
    try:
        text = _arguments.decode(call.arguments).input
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        text = call.arguments
    text = text.encode("utf-8", "replace").decode()
    return {"id": call.call_id, "type": "custom", "custom": {"name": call.name, "input": text}}


def inside(text: str) -> str:
    """A piece of the text as it stands between `BEGIN` and `END`."""
    return _encode(text)[1:-1].decode()
