"""Requests in: JSON to a checked `CreateResponse`, and from there to what the loop works on."""

from __future__ import annotations

import msgspec
from msgspec import Raw, structs

from app.dialects.openai_responses import not_yet
from app.dialects.openai_responses.choices import tool_choice
from app.dialects.openai_responses.context import check_pairing, to_items
from app.dialects.openai_responses.eliciting import elicitation_answers, elicitation_labels
from app.dialects.openai_responses.faults import UNREADABLE, absent, invalid, read, unknown, unparsable, wrong
from app.dialects.openai_responses.items import (
    approval_answers,
    approval_labels,
    asks_to_compact,
    input_items,
    references,
    resolve,
)
from app.dialects.openai_responses.later import Configuration, configuration, later_tools, settling
from app.dialects.openai_responses.tools import Tools, is_object, read_tools
from app.dialects.openai_responses.wire import ENGINE_FIELDS, IGNORED_FIELDS, NULL, CreateResponse, TextFormat
from app.turn.errors import InvalidRequest
from app.turn.events import Window
from app.turn.ids import is_well_formed
from app.turn.items import Item
from app.turn.request import AllowedTools, Format, Sampling, TurnRequest

__all__ = [
    "approval_answers",
    "approval_labels",
    "asks_to_compact",
    "check_pairing",
    "check_request",
    "configuration",
    "decode_create",
    "elicitation_answers",
    "elicitation_labels",
    "input_items",
    "is_response_id",
    "later_tools",
    "read_tools",
    "references",
    "resolve",
    "settling",
    "to_items",
    "turn_request",
    "window",
]

MAX_TEXT = 10_485_760

_fields = msgspec.json.Decoder(dict[str, Raw])
_request = msgspec.json.Decoder(CreateResponse)
_known = frozenset(field.encode_name for field in structs.fields(CreateResponse)) - {"extra"}


def decode_create(body: bytes, *, needs_input: bool = True) -> CreateResponse:
    """The request in `body`, checked as far as it can be without knowing anything else. With `needs_input` there has
    to be something to answer.

    Raises `InvalidRequest`: bad JSON, a field that is missing, unknown, of the wrong type or out of range, fields that
    exclude each other, and what is not supported. `param` is the field's path. Input items and tools are checked by
    `input_items` and `read_tools`.
    """
    fields = _top(body)
    for name in fields:
        if name not in _known and name not in ENGINE_FIELDS and name not in IGNORED_FIELDS:
            raise unknown(name)
    request = read(_request, body)
    extra = {name: raw.copy() for name, raw in fields.items() if name in ENGINE_FIELDS}
    if extra:
        request = structs.replace(request, extra=extra)
    _check(request)
    if needs_input:
        _check_input(request)
    return request


def is_response_id(value: str) -> bool:
    """Whether `value` could be the id of a response."""
    return value.startswith("resp_") and is_well_formed(value)


def turn_request(
    request: CreateResponse, items: tuple[Item, ...], tools: Tools, configured: Configuration | None = None
) -> tuple[TurnRequest, AllowedTools | None]:
    """What the first model turn is asked: `request`'s settings over the context `items` and the client's own `tools`;
    and which tools may be called at all. What the request leaves open is as the conversation has `configured` it.

    Raises `InvalidRequest` for a tool choice that cannot be made.
    """
    held = Configuration() if configured is None else configured
    asked = request.text.format if request.text else None
    effort = request.reasoning.effort if request.reasoning else None
    choice, allowed = tool_choice(request, tools)
    extra = dict(request.extra)
    verbosity = request.text.verbosity if request.text else None
    if (verbosity := verbosity or held.verbosity) is not None:
        extra["verbosity"] = Raw(msgspec.json.encode(verbosity))
    turn = TurnRequest(
        model=request.model,
        items=items,
        instructions=request.instructions,
        tools=tools.specs,
        tool_choice=choice,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        sampling=_sampling(request),
        format=_format(asked if asked is not None else held.format),
        reasoning_effort=effort if effort is not None else held.effort,
        extra=extra,
    )
    return turn, allowed


def window(request: CreateResponse) -> Window:
    """What the request wants done about a context that grows too long."""
    thresholds = [each.compact_threshold for each in request.context_management or ()]
    return Window(
        compact_now=asks_to_compact(request),
        compact_at=next((threshold for threshold in thresholds if threshold is not None), None),
        truncate=request.truncation == "auto",
    )


def _top(body: bytes) -> dict[str, Raw]:
    try:
        body.decode()
        return _fields.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None
    except UNREADABLE as error:
        raise InvalidRequest(unparsable(error), code="invalid_json") from None


def check_request(request: CreateResponse) -> None:
    """What `decode_create` checks of a request that was read. Raises `InvalidRequest`."""
    _check(request)
    _check_input(request)


def _check(request: CreateResponse) -> None:
    if request.conversation is not None and request.previous_response_id is not None:
        message = "'previous_response_id' and 'conversation' exclude each other: give one of them."
        raise InvalidRequest(message, param="previous_response_id", code="mutually_exclusive_parameters")
    _check_id(request.previous_response_id, "previous_response_id", "resp")
    _check_id(request.conversation_id, "conversation", "conv")
    not_yet.check(request, not_yet.REQUEST)
    if isinstance(request.input, str) and len(request.input) > MAX_TEXT:
        raise wrong("input", f"the text is longer than {MAX_TEXT} characters.")
    if request.text is not None and request.text.format is not None:
        check_format(request.text.format, "text.format")
    for index, each in enumerate(request.context_management or ()):
        if each.type != "compaction":
            raise wrong(f"context_management[{index}].type", "'compaction' is expected.")


def _check_input(request: CreateResponse) -> None:
    told = (request.previous_response_id, request.conversation_id, request.prompt)
    if not request.input and not isinstance(request.input, str) and told == (None, None, None):
        message = "There is nothing to answer: give 'input', 'previous_response_id', 'conversation' or 'prompt'."
        raise InvalidRequest(message, param="input", code="missing_required_parameter")


def _check_id(given: str | None, path: str, prefix: str) -> None:
    if given is None or (is_well_formed(given) and given.startswith(f"{prefix}_")):
        return
    shown = f"'{given[:80]}'."
    if not is_well_formed(given):
        shown += " Expected an ID that contains letters, numbers, underscores, or dashes."
    else:
        shown += f" Expected an ID that begins with '{prefix}'."
    raise wrong(path, shown)


def check_format(given: TextFormat, path: str) -> None:
    """Raises `InvalidRequest` for a JSON schema format that lacks its name or its schema."""
    if given.type != "json_schema":
        return
    if given.name is None:
        raise absent(f"{path}.name")
    if given.schema == NULL:
        raise absent(f"{path}.schema")
    if not is_object(given.schema):
        raise wrong(f"{path}.schema", "a JSON Schema object is expected.")


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
