"""Scripted replies: a file that says what the model says.

    replies:
      - when: weather                      # a regular expression, searched for in what was said last
        calls: [{name: get_weather, arguments: {city: Paris}}]
      - text: First answer.                # without `when`: the answers of a conversation, one after the other
      - reasoning: Hm.
        text: Second answer.
        fault: {cut_after: 3}

What was said last is the last message: of the user, or a tool's result. The first matching `when` answers. Replies
without one answer by how many turns the model has had in the conversation; after the last of them, the rules do. So
the answer is still a function of the request alone, and any number of conversations can follow a script at once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from app.simulator.prompt import text_of
from app.simulator.reply import Call, Fault, Reply
from app.simulator.wire import Message


class ScriptError(Exception):
    """A script that cannot be used; the message says where it is wrong."""


class ScriptedCall(Struct, frozen=True, forbid_unknown_fields=True):
    """A call: `arguments` is an object, or text to be sent as it is."""

    name: str
    arguments: dict[str, Any] | str = msgspec.field(default_factory=dict[str, Any])


class ScriptedReply(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a script."""

    when: str | None = None
    text: str = ""
    calls: tuple[ScriptedCall, ...] = ()
    reasoning: str = ""
    fault: Fault | None = None

    def reply(self) -> Reply:
        """The entry as a reply."""
        return Reply(self.text, tuple(map(_call, self.calls)), self.reasoning, self.fault)


class ScriptFile(Struct, frozen=True, forbid_unknown_fields=True):
    """What a script holds."""

    replies: tuple[ScriptedReply, ...]


class Script:
    """Replies, found by what was asked. Raises `ScriptError` for a `when` that is no regular expression."""

    def __init__(self, entries: tuple[ScriptedReply, ...] = ()) -> None:
        self._matching = [(_pattern(entry.when), entry.reply()) for entry in entries if entry.when is not None]
        self._in_turn = [entry.reply() for entry in entries if entry.when is None]

    def reply(self, messages: list[Message]) -> Reply | None:
        """The scripted answer to a conversation, if there is one."""
        if self._matching and messages:
            last = text_of(messages[-1].content)
            for pattern, reply in self._matching:
                if pattern.search(last):
                    return reply
        turn = sum(message.role == "assistant" for message in messages)
        return self._in_turn[turn] if turn < len(self._in_turn) else None


def load(path: str | None) -> Script:
    """The script in a YAML or JSON file, or an empty one. Raises `ScriptError`."""
    if path is None:
        return Script()
    try:
        # JSON is YAML too.
        entries = msgspec.yaml.decode(Path(path).read_bytes(), type=ScriptFile).replies
        return Script(entries)
    except OSError as error:
        raise ScriptError(f"cannot read script {path}: {error.strerror}") from error
    except (msgspec.DecodeError, ScriptError) as error:
        raise ScriptError(f"script {path}: {error}") from error


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ScriptError(f"{text!r} is no regular expression: {error}") from error


def _call(call: ScriptedCall) -> Call:
    arguments = call.arguments
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return Call(call.name, text)
