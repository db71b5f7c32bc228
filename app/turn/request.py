"""One model turn as a value: what to say to the model and how to sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from app.turn.items import Item, ToolSpec


class NamedTool(Struct, frozen=True, tag="named"):
    """The model must call this tool (by the name the model sees)."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


class Sampling(Struct, frozen=True, kw_only=True):
    """How to sample. None means: the engine's own default."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Format(Struct, frozen=True, kw_only=True):
    """The shape of the answer: text, any JSON object, or JSON that fits a schema (verbatim JSON Schema)."""

    kind: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema: msgspec.Raw | None = None
    strict: bool | None = None
    description: str | None = None


class TurnRequest(Struct, frozen=True, kw_only=True):
    """One model turn, in no provider's dialect.

    `instructions` come before all items. `items` is the whole context in order. `tools` are in a stable order, so
    that equal conversations have equal prompts and the engine's prefix cache holds.
    `extra` are fields we do not model, forwarded to the engine as they are.
    """

    model: str
    items: tuple[Item, ...]
    instructions: str | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    sampling: Sampling = Sampling()
    format: Format = Format()
    reasoning_effort: str | None = None
    extra: Mapping[str, msgspec.Raw] = msgspec.field(default_factory=dict[str, msgspec.Raw])
