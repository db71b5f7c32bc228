"""What bodies and events have to be: by the Open Responses contract, and by the types of the OpenAI SDK.

The contract has no word for most items and tools: those are left out before it is asked, and the SDK knows them. The
SDK is made to validate, which it does not do by itself: its users get `None` where a field is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, get_args, get_origin

from openai import BaseModel
from openai.types import conversations
from openai.types import responses as sdk
from pydantic import ValidationError

from tests.support import open_responses
from tests.support.open_responses import ITEMS, faults

Json = dict[str, Any]

# What else an answer can be, by its route; whatever is not here is looked at by the tests of its own.
ROUTES: dict[str, type[BaseModel]] = {
    "POST /v1/responses/input_tokens": sdk.InputTokenCountResponse,
    "POST /v1/conversations": conversations.Conversation,
    "(GET|POST) /v1/conversations/[^/]+": conversations.Conversation,
    "DELETE /v1/conversations/[^/]+": conversations.ConversationDeletedResource,
    "DELETE /v1/conversations/[^/]+/items/[^/]+": conversations.Conversation,
}
RESPONSE = "POST /v1/responses|(GET|POST) /v1/responses/[^/]+(/cancel)?"
LISTS = "GET /v1/responses/[^/]+/input_items|(GET|POST) /v1/conversations/[^/]+/items"
ITEM = "GET /v1/conversations/[^/]+/items/[^/]+"
STEERING = "response.steer"
# Items of ours that no contract has a word for, and what they always hold.
OURS: dict[str, tuple[str, ...]] = {
    "mcp_elicitation_request": ("id", "server_label", "name", "arguments", "mcp_call_id", "mode", "message"),
    "mcp_elicitation_response": ("id", "elicitation_request_id", "action"),
}


def body_faults(method: str, path: str, status: int, body: Json) -> list[str]:
    """What is wrong with an answer of the API. A socket's frames that are no events have their type as `path`."""
    return list(_faults(f"{method} {path.rstrip('/')}", status, body))


def _faults(route: str, status: int, body: Json) -> Iterator[str]:
    if route == "SOCKET error":
        yield from faults("WebSocketErrorEvent", body)
        yield from faults("ErrorPayload", body["error"])
    elif route.startswith("SOCKET"):
        model = _socket_types().get(route.removeprefix("SOCKET "))
        found = ("no such frame",) if model is None else _typed(model, body)
        # Input that is given back is as it was.
        yield from (fault for fault in found if not fault.startswith("$.steer.input"))
    elif status >= 400:
        if set(body) != {"error"}:
            yield f"an error with {sorted(body)}"
        yield from faults("ErrorPayload", body.get("error"))
    elif route == "GET /v1/responses":
        for response in body["data"]:
            yield from response_faults(response)
    elif route == "POST /v1/responses/compact":
        yield from faults("CompactResource", body)
        yield from _typed(sdk.CompactedResponse, {**body, "output": []})
        yield from _items("output", body["output"], _item_types())
    elif model := next((model for known, model in ROUTES.items() if re.fullmatch(known, route)), None):
        yield from _typed(model, body)
    elif re.fullmatch(RESPONSE, route):
        yield from response_faults(body)
    elif re.fullmatch(LISTS, route):
        # There is no first or last item of none.
        ends = {} if body["data"] else {"first_id": "", "last_id": ""}
        yield from _typed(sdk.ResponseItemList, {**body, "data": [], **ends})
        yield from _items("data", body["data"], _item_types())
    elif re.fullmatch(ITEM, route):
        yield from _items("item", [body], _item_types())


def response_faults(body: Json) -> Iterator[str]:
    """What is wrong with a response.

    Two things are allowed that one of the judges is not: a schema for the text, for which the contract has no value but
    null, and codes of errors that say more than the SDK's few.
    """
    choice = body.get("tool_choice")
    # The contract chooses among functions.
    others = isinstance(choice, dict) and choice.get("type") not in {"function", "allowed_tools"}
    known = {**_plain(body), "tool_choice": "auto" if others else choice}
    yield from faults("ResponseResource", known)
    error = body.get("error") and {**body["error"], "code": "server_error"}
    yield from _typed(sdk.Response, {**body, "output": [], "tools": [], "error": error})
    yield from _items("output", body.get("output", []), _output_types())


def event_faults(event: Json, profile: str) -> Iterator[str]:
    """What is wrong with an event of a stream, as far as it can be seen by itself."""
    kind = event["type"]
    if profile == "openresponses":
        # The contract's union of items has ours of MCP and of hosted tools as little as its union of events.
        if open_responses.has_event(kind) and event.get("item", {}).get("type", "message") in ITEMS:
            plain = {**event, "response": _plain(event["response"])} if "response" in event else event
            yield from open_responses.event_faults(plain)
        return
    model = _event_types().get(kind)
    if model is None:
        yield "the SDK does not know it"
        return
    # What is inside is looked at by itself: the SDK's unions complain once for each of their members.
    yield from (fault for fault in _typed(model, event) if not re.match(r"\$\.(response|item)\b", fault))
    if "response" in event:
        yield from response_faults(event["response"])
    if "item" in event:
        yield from _items("item", [event["item"]], _output_types())


def _plain(response: Json) -> Json:
    """Without what the contract has no word for."""
    plain = dict(response)
    if response.get("text", {}).get("format", {}).get("type") == "json_schema":
        plain["text"] = {**response["text"], "format": {**response["text"]["format"], "schema": None}}
    for name, known in (("output", ITEMS), ("tools", {"function"})):
        if name in plain:
            plain[name] = [each for each in plain[name] if each["type"] in known]
    return plain


def _items(name: str, items: list[Json], types: dict[str, type[BaseModel]]) -> Iterator[str]:
    for number, item in enumerate(items):
        kind = item.get("type")
        model = types.get(str(kind))
        if model is None and kind in OURS:
            yield from (f"$.{name}[{number}] {kind}: {each} is missing" for each in OURS[str(kind)] if each not in item)
            continue
        if model is None:
            yield f"$.{name}[{number}]: the SDK knows no item of type {kind}"
            continue
        if kind == "message":
            model = sdk.ResponseOutputMessage if item.get("role") == "assistant" else conversations.Message
        yield from (f"$.{name}[{number}] {kind}: {fault}" for fault in _typed(model, item))
        if kind in ITEMS and name == "output":
            yield from (f"$.{name}[{number}] {kind}: {fault}" for fault in faults("ItemField", item))


def _typed(model: type[BaseModel], value: object) -> Iterator[str]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        for each in error.errors(include_url=False, include_input=False)[:5]:
            where = ".".join(str(step) for step in each["loc"])
            yield f"$.{where} is not what the SDK's {model.__name__} has: {each['msg']}"


@cache
def _event_types() -> dict[str, type[BaseModel]]:
    return _by_type(sdk.ResponseStreamEvent)


@cache
def _socket_types() -> dict[str, type[BaseModel]]:
    return _by_type(sdk.ResponsesServerEvent)


@cache
def _output_types() -> dict[str, type[BaseModel]]:
    return _by_type(sdk.ResponseOutputItem)


@cache
def _item_types() -> dict[str, type[BaseModel]]:
    return _by_type(conversations.ConversationItem) | _by_type(sdk.ResponseItem)


def _by_type(union: Any) -> dict[str, type[BaseModel]]:
    """The members of a union by the `type` they have."""
    found: dict[str, type[BaseModel]] = {}
    for member in _members(union):
        annotation = member.model_fields["type"].annotation
        for name in get_args(annotation) if get_origin(annotation) is Literal else ():
            found[name] = member
    return found


def _members(union: Any) -> Iterator[type[BaseModel]]:
    if isinstance(union, type) and issubclass(union, BaseModel):
        yield union
    for each in get_args(union):
        yield from _members(each)
