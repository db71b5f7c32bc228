"""Prompts: instructions and input with holes in them, `{{name}}`, and how the holes are filled.

Text goes wherever a hole is. A picture or a file goes only where the text of a message is, and takes the hole's place
among the message's parts. Nothing is filled by halves: every hole gets a value, and every value has a hole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, cast

import msgspec
from msgspec import Meta, Raw, Struct

from app.dialects.openai_responses.faults import absent, read, wrong
from app.turn.errors import InvalidRequest

_HOLE = re.compile(r"\{\{\s*([A-Za-z0-9_.-]{1,64})\s*\}\}")
_TEXT_PARTS = frozenset(("input_text", "output_text"))
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "input_text": ("text",),
    "input_image": ("image_url", "file_id"),
    "input_file": ("file_data", "file_url", "file_id"),
}

Hole: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
# A value: text, or a part that is not text.
Value: TypeAlias = str | dict[str, Any]


class PromptBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a version of a prompt says. `variables` are the values of holes that a request leaves open."""

    name: Annotated[Annotated[str, Meta(max_length=256)] | None, Meta(description="For people.")] = None
    instructions: Annotated[str | None, Meta(description="What the model is told before everything else.")] = None
    input: Annotated[str | list[Raw] | None, Meta(description="Text or items, before the request's own.")] = None
    variables: Annotated[dict[Hole, str] | None, Meta(description="Values where a request gives none.")] = None


class Filled(Struct, frozen=True):
    """A prompt without holes."""

    instructions: str | None
    input: list[Raw]


_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode
_value = msgspec.json.Decoder(str | dict[str, Any])


def holes(body: PromptBody) -> tuple[str, ...]:
    """The names of the holes, each once, in order."""
    return tuple(
        dict.fromkeys(name for text in _texts([body.instructions, _input(body)]) for name in _HOLE.findall(text))
    )


def fill(body: PromptBody, given: Mapping[str, Raw]) -> Filled:
    """The prompt with the holes filled. Raises `InvalidRequest(param="prompt.variables.x")`."""
    named = holes(body)
    values: dict[str, Value] = {**(body.variables or {})}
    for name, raw in given.items():
        if name not in named:
            raise wrong(f"prompt.variables.{name}", "the prompt has no such variable.")
        values[name] = _read(name, raw)
    for name in named:
        if name not in values:
            raise absent(f"prompt.variables.{name}")
    instructions = None if body.instructions is None else _text(body.instructions, values)
    return Filled(instructions, [Raw(_encode(_item(item, values))) for item in _input(body)])


def _input(body: PromptBody) -> list[Any]:
    if body.input is None:
        return []
    if isinstance(body.input, str):
        return [{"type": "message", "role": "user", "content": body.input}]
    return [_any.decode(raw) for raw in body.input]


def _read(name: str, raw: Raw) -> Value:
    path = f"prompt.variables.{name}"
    value = read(_value, raw, path)
    if isinstance(value, str):
        return value
    needs = _NEEDS.get(str(value.get("type")))
    if needs is None:
        raise wrong(f"{path}.type", "one of input_text, input_image, input_file is expected.")
    if not any(isinstance(value.get(field), str) and (value[field] or field == "text") for field in needs):
        raise absent(f"{path}.{needs[0]}")
    return value["text"] if value["type"] == "input_text" else value


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(cast("dict[str, Any]", value).values())
    if isinstance(value, list):
        return [text for each in cast("list[Any]", value) for text in _texts(each)]
    return []


def _text(text: str, values: Mapping[str, Value]) -> str:
    def put(hole: re.Match[str]) -> str:
        value = values[hole.group(1)]
        if not isinstance(value, str):
            path = f"prompt.variables.{hole.group(1)}"
            raise InvalidRequest(
                f"Invalid '{path}': the prompt has text in this place.", param=path, code="invalid_type"
            )
        return value

    return _HOLE.sub(put, text)


def _item(item: Any, values: Mapping[str, Value]) -> Any:
    if not isinstance(item, dict):
        return item
    fields = cast("dict[str, Any]", item)
    content = fields.get("content")
    if content is None or fields.get("type", "message") != "message":
        return _everywhere(fields, values)
    kind = "output_text" if fields.get("role") == "assistant" else "input_text"
    parts: list[Any] = [{"type": kind, "text": content}] if isinstance(content, str) else content
    rest = _everywhere({name: value for name, value in fields.items() if name != "content"}, values)
    return {**rest, "content": [made for part in parts for made in _part(part, values)]}


def _part(part: Any, values: Mapping[str, Value]) -> list[Any]:
    if not isinstance(part, dict):
        return [part]
    fields = cast("dict[str, Any]", part)
    text = fields.get("text")
    if fields.get("type") not in _TEXT_PARTS or not isinstance(text, str):
        return [_everywhere(fields, values)]
    made: list[Any] = []
    said, end = "", 0
    for hole in _HOLE.finditer(text):
        value = values[hole.group(1)]
        said += text[end : hole.start()]
        end = hole.end()
        if isinstance(value, str):
            said += value
        else:
            made += [*([{**fields, "text": said}] if said else []), value]
            said = ""
    said += text[end:]
    return [*made, *([{**fields, "text": said}] if said or not made else [])]


def _everywhere(value: Any, values: Mapping[str, Value]) -> Any:
    if isinstance(value, str):
        return _text(value, values)
    if isinstance(value, dict):
        return {name: _everywhere(each, values) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_everywhere(each, values) for each in cast("list[Any]", value)]
    return value
