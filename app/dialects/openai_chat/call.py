"""A turn as a chat-completions request."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct

from app.dialects.openai_chat import custom
from app.dialects.openai_chat.render import ReasoningField, messages
from app.turn.items import ToolSpec
from app.turn.request import Format, NamedTool, Sampling, ToolChoice, TurnRequest

# The field that bounds the answer: engines know `max_tokens`, OpenAI's newer models only the other.
LimitField: TypeAlias = Literal["max_tokens", "max_completion_tokens"]
# What custom tools are to the engine: most know functions only.
CustomTools: TypeAlias = Literal["function", "custom"]

_NO_PARAMETERS = Raw(b'{"type":"object","properties":{}}')

_encode = msgspec.json.Encoder().encode


class Quirks(Struct, frozen=True, kw_only=True):
    """Where engines differ."""

    reasoning_field: ReasoningField = "both"
    limit_field: LimitField = "max_tokens"
    custom_tools: CustomTools = "function"


def encode_request(request: TurnRequest, model: str, quirks: Quirks) -> bytes:
    """The body of `POST /v1/chat/completions` that runs the turn as a stream with usage.

    Fields are always in the same order. `request.extra` comes last, verbatim, and replaces nothing.
    Raises `UnicodeEncodeError` for text with lone surrogates, and `msgspec.MsgspecError` for raw JSON that is none.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": messages(
            request.instructions, request.items, quirks.reasoning_field, custom=quirks.custom_tools == "custom"
        ),
        **_tools(request, quirks),
        **_sampling(request.sampling, quirks),
    }
    if request.reasoning_effort is not None:
        body["reasoning_effort"] = request.reasoning_effort
    response_format = _format(request.format)
    if response_format is not None:
        body["response_format"] = response_format
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    for name, value in request.extra.items():
        body.setdefault(name, value)
    return _encode(body)


def _tools(request: TurnRequest, quirks: Quirks) -> dict[str, Any]:
    if not request.tools:
        return {}
    free = [tool.name for tool in request.tools if tool.kind == "custom" and quirks.custom_tools == "custom"]
    return {
        "tools": [
            custom.offered(tool) if tool.name in free else {"type": "function", "function": _function(tool)}
            for tool in request.tools
        ],
        "tool_choice": _choice(request.tool_choice, free),
        # Said always: it is on by default at some engines and off at others.
        "parallel_tool_calls": request.parallel_tool_calls,
    }


def _function(tool: ToolSpec) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    given = bytes(tool.parameters)
    function["parameters"] = _NO_PARAMETERS if given in (b"", b"null") else tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return function


def _choice(choice: ToolChoice, free: Collection[str]) -> Any:
    if not isinstance(choice, NamedTool):
        return choice
    kind = "custom" if choice.name in free else "function"
    return {"type": kind, kind: {"name": choice.name}}


def _sampling(sampling: Sampling, quirks: Quirks) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        quirks.limit_field: sampling.max_output_tokens,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logprobs": True if sampling.top_logprobs is not None else None,
        "top_logprobs": sampling.top_logprobs,
        "seed": sampling.seed,
        "stop": sampling.stop or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _format(wanted: Format) -> dict[str, Any] | None:
    if wanted.kind == "text":
        return None
    if wanted.kind == "json_object":
        return {"type": "json_object"}
    schema = {
        "name": wanted.name or "answer",
        "description": wanted.description,
        "schema": wanted.schema,
        "strict": wanted.strict,
    }
    return {
        "type": "json_schema",
        "json_schema": {name: value for name, value in schema.items() if value is not None},
    }
