"""The rules by which the simulated model answers: a pure function of the request. docs/simulator.md tells users.

1. After tool results it says what each tool returned.
2. Where the last user message names offered tools, each followed by a JSON object, it calls them, in that order.
3. Where a tool must be called and none was named, it calls that one, or the first, with the smallest arguments.
4. Where the answer must be JSON, it is the smallest that the schema allows.
5. Where the message asks for `N words`, it says that many.
6. Otherwise it says what it was told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from app.simulator.instances import smallest
from app.simulator.prompt import text_of
from app.simulator.reply import Call, Reply
from app.simulator.wire import ChatRequest, Function, Message, NamedTool, ResponseFormat
from app.turn.errors import InvalidRequest

_ECHOED = 1000
_WORDS = re.compile(r"\b(\d{1,6}) words\b")
_FLOCK = ("One", "sheep", "looks", "up", "and", "sees", "that", "the", "grass", "is", "green", "on", "the", "hill")
_decoder = json.JSONDecoder()


def answer(request: ChatRequest) -> Reply:
    """What the model says next."""
    if returned := _results(request.messages):
        return Reply("\n".join(returned))
    text = last_text(request.messages)
    if calls := _calls(request, text):
        return Reply(calls=calls if request.parallel_tool_calls is not False else calls[:1])
    if request.response_format is not None and request.response_format.type != "text":
        return Reply(_formed(request.response_format))
    return Reply(said(text))


def said(text: str) -> str:
    """The answer to a text that asks for nothing in particular."""
    if asked := _WORDS.search(text):
        count = int(asked.group(1))
        return " ".join((_FLOCK * (count // len(_FLOCK) + 1))[:count])
    return f"You said: {_short(text)}" if text else "You said nothing."


def thought(reply: Reply) -> str:
    """What a model that reasons thinks before `reply`."""
    if reply.calls:
        return f"I should call {', '.join(call.name for call in reply.calls)}."
    return "I have what I need, so I can answer."


def last_text(messages: Sequence[Message]) -> str:
    """The text of the last user message, or of the last message when no user spoke."""
    asked = next((message for message in reversed(messages) if message.role == "user"), None)
    if asked is None and messages:
        asked = messages[-1]
    return text_of(asked.content) if asked is not None else ""


def _results(messages: Sequence[Message]) -> list[str]:
    """What the tools whose results end the conversation returned, in order."""
    names = {call.id: call.function.name for message in messages for call in message.tool_calls or ()}
    returned: list[str] = []
    for message in reversed(messages):
        if message.role != "tool":
            break
        name = names.get(message.tool_call_id or "", "The tool")
        returned.append(f"{name} returned: {_short(text_of(message.content))}")
    return returned[::-1]


def _calls(request: ChatRequest, text: str) -> tuple[Call, ...]:
    choice = request.tool_choice
    functions = [tool.function for tool in request.tools or ()]
    if choice == "none" or not functions:
        return ()
    if isinstance(choice, NamedTool):
        functions = [function for function in functions if function.name == choice.function.name]
    named = tuple(_named(text, [function.name for function in functions]))
    if not named and functions and (choice == "required" or isinstance(choice, NamedTool)):
        return (Call(functions[0].name, _smallest_arguments(functions[0])),)
    return named


def _named(text: str, names: Sequence[str]) -> Iterator[Call]:
    """The tools `text` names with a JSON object behind the name. Names inside those objects do not count."""
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    wanted = re.compile(rf"(?<![\w.-])({longest_first})\s*:?\s*(?={{)")
    position = 0
    while found := wanted.search(text, position):
        position = found.end()
        try:
            _, end = _decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            continue
        yield Call(found.group(1), text[position:end])
        position = end


def _smallest_arguments(function: Function) -> str:
    made = _instance(function.parameters, "tools")
    return "{}" if not isinstance(made, dict) else msgspec.json.encode(made).decode()


def _formed(wanted: ResponseFormat) -> str:
    if wanted.json_schema is None:
        return "{}"
    return msgspec.json.encode(_instance(wanted.json_schema.schema, "response_format")).decode()


def _instance(schema: msgspec.Raw, param: str) -> Any:
    try:
        return smallest(msgspec.json.decode(schema))
    except (TypeError, ValueError, AttributeError, KeyError):
        raise InvalidRequest(f"A schema in '{param}' is not a JSON schema.", param=param) from None


def _short(text: str) -> str:
    return text if len(text) <= _ECHOED else f"{text[:_ECHOED]} … and {len(text) - _ECHOED} more characters."
