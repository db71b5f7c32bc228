"""Requests in: JSON to a checked `CreateResponse`, and from there to what the loop works on."""

from __future__ import annotations

import msgspec
from msgspec import Raw, structs

from app.dialects.openai_responses import not_yet
from app.dialects.openai_responses.context import check_pairing, to_items
from app.dialects.openai_responses.faults import UNREADABLE, absent, invalid, read, unparsable, wrong
from app.dialects.openai_responses.items import input_items
from app.dialects.openai_responses.tools import function_tools, is_object, servers
from app.dialects.openai_responses.wire import (
    ENGINE_FIELDS,
    IGNORED_FIELDS,
    NULL,
    ChoiceBody,
    CreateResponse,
    TextFormat,
)
from app.turn.errors import InvalidRequest
from app.turn.ids import is_well_formed
from app.turn.items import Item, ToolSpec
from app.turn.request import Format, NamedTool, Sampling, ToolChoice, TurnRequest

__all__ = [
    "check_pairing",
    "decode_create",
    "function_tools",
    "input_items",
    "is_response_id",
    "servers",
    "to_items",
    "turn_request",
]

MAX_TEXT = 10_485_760
_MODES: dict[str, ToolChoice] = {"none": "none", "auto": "auto", "required": "required"}

_fields = msgspec.json.Decoder(dict[str, Raw])
_request = msgspec.json.Decoder(CreateResponse)
_choice = msgspec.json.Decoder(str | ChoiceBody)
_known = frozenset(field.encode_name for field in structs.fields(CreateResponse)) - {"extra"}


def decode_create(body: bytes) -> CreateResponse:
    """The request in `body`, checked as far as it can be without knowing anything else.

    Raises `InvalidRequest`: bad JSON, a field that is missing, unknown, of the wrong type or out of range, fields that
    exclude each other, and what is not supported. `param` is the field's path. Input items and tools are checked by
    `input_items`, `servers` and `function_tools`.
    """
    fields = _top(body)
    for name in fields:
        if name not in _known and name not in ENGINE_FIELDS and name not in IGNORED_FIELDS:
            raise InvalidRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    request = read(_request, body)
    extra = {name: raw.copy() for name, raw in fields.items() if name in ENGINE_FIELDS}
    if extra:
        request = structs.replace(request, extra=extra)
    _check(request)
    return request


def is_response_id(value: str) -> bool:
    """Whether `value` could be the id of a response."""
    return value.startswith("resp_") and is_well_formed(value)


def turn_request(request: CreateResponse, items: tuple[Item, ...], tools: tuple[ToolSpec, ...]) -> TurnRequest:
    """What the first model turn is asked: `request`'s settings over the context `items` and the client's own `tools`.

    Raises `InvalidRequest` for a tool choice that cannot be made.
    """
    extra = dict(request.extra)
    if request.text is not None and request.text.verbosity is not None:
        extra["verbosity"] = Raw(msgspec.json.encode(request.text.verbosity))
    return TurnRequest(
        model=request.model,
        items=items,
        instructions=request.instructions,
        tools=tools,
        tool_choice=_tool_choice(request, tools),
        parallel_tool_calls=request.parallel_tool_calls is not False,
        sampling=_sampling(request),
        format=_format(request.text.format if request.text else None),
        reasoning_effort=request.reasoning.effort if request.reasoning else None,
        extra=extra,
    )


def _top(body: bytes) -> dict[str, Raw]:
    try:
        body.decode()
        return _fields.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None
    except UNREADABLE as error:
        raise InvalidRequest(unparsable(error), code="invalid_json") from None


def _check(request: CreateResponse) -> None:
    if request.conversation != NULL and request.previous_response_id is not None:
        message = "'previous_response_id' and 'conversation' exclude each other: give one of them."
        raise InvalidRequest(message, param="previous_response_id", code="mutually_exclusive_parameters")
    _check_previous(request.previous_response_id)
    not_yet.check(request, not_yet.REQUEST)
    if not request.input and not isinstance(request.input, str) and request.previous_response_id is None:
        message = "There is nothing to answer: give 'input' or 'previous_response_id'."
        raise InvalidRequest(message, param="input", code="missing_required_parameter")
    if isinstance(request.input, str) and len(request.input) > MAX_TEXT:
        raise wrong("input", f"the text is longer than {MAX_TEXT} characters.")
    if request.text is not None and request.text.format is not None:
        _check_format(request.text.format)


def _check_previous(previous: str | None) -> None:
    if previous is None or is_response_id(previous):
        return
    shown = previous[:80]
    why = (
        f"'{shown}' is not the id of a response. Ids begin with 'resp_' and hold letters, numbers, underscores, dashes."
    )
    raise wrong("previous_response_id", why)


def _check_format(given: TextFormat) -> None:
    if given.type != "json_schema":
        return
    if given.name is None:
        raise absent("text.format.name")
    if given.schema == NULL:
        raise absent("text.format.schema")
    if not is_object(given.schema):
        raise wrong("text.format.schema", "a JSON Schema object is expected.")


def _format(given: TextFormat | None) -> Format:
    if given is None:
        return Format()
    if given.type != "json_schema":
        return Format(kind=given.type)
    return Format(
        kind="json_schema",
        name=given.name,
        schema=given.schema,
        strict=given.strict,
        description=given.description,
    )


def _sampling(request: CreateResponse) -> Sampling:
    wants_logprobs = "message.output_text.logprobs" in (request.include or ())
    stop = request.stop
    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        max_output_tokens=request.max_output_tokens,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        top_logprobs=0 if wants_logprobs and request.top_logprobs is None else request.top_logprobs,
        seed=request.seed,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
    )


def _tool_choice(request: CreateResponse, tools: tuple[ToolSpec, ...]) -> ToolChoice:
    if request.tool_choice == NULL:
        return "auto"
    choice = read(_choice, request.tool_choice, "tool_choice")
    if isinstance(choice, str):
        if choice not in _MODES:
            raise wrong("tool_choice", "one of none, auto, required, or an object is expected.")
        if choice == "required" and not request.tools:
            raise wrong("tool_choice", "'required' needs 'tools' to choose from.")
        return _MODES[choice]
    if choice.type not in not_yet.CHOICES_BUILT:
        raise not_yet.refuse("tool_choice.type", "Only a function can be chosen by name.")
    if choice.name is None:
        raise absent("tool_choice.name")
    if all(tool.name != choice.name for tool in tools):
        raise wrong("tool_choice.name", f"there is no function named '{choice.name}' among the tools.")
    return NamedTool(choice.name)
