"""The bodies of the endpoints beside responses: conversations, counting, compacting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct, structs

from app.dialects.openai_responses.decode import check_request
from app.dialects.openai_responses.faults import UNREADABLE, invalid, read, unparsable
from app.dialects.openai_responses.items import input_items
from app.dialects.openai_responses.sealed import Unseal
from app.dialects.openai_responses.wire import (
    CacheRetention,
    ConversationRef,
    CreateResponse,
    ExpiresAfter,
    Include,
    Metadata,
    PromptRef,
    ReasoningConfig,
    ServiceTier,
    TextConfig,
    Truncation,
    missing,
)
from app.turn.errors import InvalidRequest
from app.turn.ids import IdSource
from app.turn.items import StoredItem

MOST_ITEMS = 20

_T = TypeVar("_T", bound=Struct)


class NewConversation(Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/conversations`."""

    items: Annotated[list[Raw] | None, Meta(description="At most 20 items to begin with.")] = None
    metadata: Metadata | None = None
    expires_after: Annotated[
        ExpiresAfter | None, Meta(description="When to forget the conversation and the responses made in it.")
    ] = None


class ChangedConversation(Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/conversations/{id}`. The metadata replace what was there."""

    metadata: Metadata | None


class NewItems(Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/conversations/{id}/items`."""

    items: Annotated[list[Raw], Meta(description="At most 20 items, to be added at the end.")]


class CountTokens(Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/responses/input_tokens`: the fields of a response that its input depends on."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[Raw] | None = None
    instructions: str | None = None
    conversation: str | ConversationRef | None = None
    previous_response_id: str | None = None
    prompt: PromptRef | None = None
    tools: list[Raw] | None = None
    tool_choice: Raw = msgspec.field(default_factory=missing)
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningConfig | None = None
    text: TextConfig | None = None
    truncation: Truncation | None = None
    personality: Annotated[str, Meta(max_length=64)] | None = None


class Compact(Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/responses/compact`."""

    model: Annotated[str, Meta(min_length=1)]
    input: str | list[Raw] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    prompt_cache_key: Annotated[str, Meta(max_length=64)] | None = None
    prompt_cache_retention: CacheRetention | None = None
    service_tier: ServiceTier | None = None


_new = msgspec.json.Decoder(NewConversation)
_changed = msgspec.json.Decoder(ChangedConversation)
_items = msgspec.json.Decoder(NewItems)
_count = msgspec.json.Decoder(CountTokens)
_compact = msgspec.json.Decoder(Compact)
_fields = msgspec.json.Decoder(dict[str, Raw])


def decode_new_conversation(body: bytes) -> NewConversation:
    """Raises `InvalidRequest`, whose `param` is the path of the wrong field."""
    found = _read(_new, body)
    _check_number(found.items or ())
    return found


def decode_changed_conversation(body: bytes) -> dict[str, str]:
    """The new metadata. Raises `InvalidRequest`."""
    return _read(_changed, body).metadata or {}


def decode_new_items(body: bytes) -> list[Raw]:
    """Raises `InvalidRequest`."""
    found = _read(_items, body).items
    _check_number(found)
    return found


def decode_count(body: bytes) -> CreateResponse:
    """The request whose input is to be counted. Raises `InvalidRequest`."""
    found = _read(_count, body)
    return _as_request(found, ("personality", "truncation"))


def decode_compact(body: bytes) -> CreateResponse:
    """The request whose context is to be compacted. Raises `InvalidRequest`."""
    return _as_request(_read(_compact, body), ("prompt_cache_retention", "service_tier"))


def conversation_items(given: Sequence[Raw], ids: IdSource, unseal: Unseal) -> tuple[StoredItem, ...]:
    """The items of a conversation, as `input_items` would read them. Raises `InvalidRequest` that names `items`."""
    try:
        found = input_items(CreateResponse(model="-", input=list(given)), ids, unseal)
    except InvalidRequest as error:
        raise _renamed(error) from error
    if len(found) != len(given):
        path = f"items[{len(found)}]"
        raise InvalidRequest(f"Invalid '{path}': a conversation does not hold such an item.", param=path)
    return found


def check_include(given: Sequence[str]) -> None:
    """Raise `InvalidRequest` for something that cannot be included."""
    for each in given:
        try:
            msgspec.convert(each, Include)
        except msgspec.ValidationError:
            message = f"Invalid 'include': '{each[:80]}' cannot be included."
            raise InvalidRequest(message, param="include", code="invalid_value") from None


def _read(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    try:
        body.decode()
        fields = _fields.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None
    except UNREADABLE as error:
        raise InvalidRequest(unparsable(error), code="invalid_json") from None
    known = {field.encode_name for field in structs.fields(decoder.type)}
    for name in fields:
        if name not in known:
            raise InvalidRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    return read(decoder, body)


def _as_request(found: CountTokens | Compact, but: Sequence[str]) -> CreateResponse:
    given: dict[str, Any] = {name: value for name, value in structs.asdict(found).items() if name not in but}
    request = CreateResponse(**given)
    check_request(request)
    return request


def _check_number(items: Sequence[Raw]) -> None:
    if len(items) > MOST_ITEMS:
        message = f"Invalid 'items': there are {len(items)}; at most {MOST_ITEMS} can be added at a time."
        raise InvalidRequest(message, param="items", code="array_above_max_length")


def _renamed(error: InvalidRequest) -> InvalidRequest:
    message, param = error.message, error.param
    if param is not None and (param == "input" or param.startswith("input[")):
        message = message.replace(param, "items" + param.removeprefix("input"))
        param = "items" + param.removeprefix("input")
    return InvalidRequest(message, param=param, code=error.code, status=error.status)
