"""Chunks of a chat stream, or a whole answer, as turn events.

The order that `app.turn.events` asks for is made here, whatever the engine does:

* Text, thinking and each call are items of their own; one ends when another begins.
* Of several calls one is told at a time. Pieces of the next are kept until the one before is whole, which is when its
  arguments are a JSON object, or the turn ends. Engines write one after the other, so nothing is kept in practice.
* A call is announced with its first arguments: only then is its name known to be whole.
* White space around calls and thinking is no message. It is held back until text follows, and dropped when none does.
* The end is told at `[DONE]`, or when the stream ends after a `finish_reason`: the usage comes after that. A stream
  that ends without a `finish_reason` was cut, `[DONE]` or not; `complete` says which it was.

Ids are the engine's, unless it has none, reuses one within the turn, or has one too long for the API.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Raw

from app.dialects.openai_chat.calls import CallBook
from app.dialects.openai_chat.faults import EngineError, EngineFault, read_error
from app.dialects.openai_chat.logprobs import LogprobTail
from app.dialects.openai_chat.wire import NULL, Choice, Chunk, Delta, UsageBody
from app.turn.events import ItemDone, ReasoningDelta, RefusalDelta, TextDelta, TurnDone, TurnEvent
from app.turn.items import Message, Part, Reasoning, Refusal, Text
from app.turn.usage import Usage

Reason = Literal["stop", "length", "tool_calls", "content_filter"]

_chunk = msgspec.json.Decoder(Chunk)

# What engines call the end of a turn; any other word is an ordinary stop.
_REASONS: dict[str, Reason] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}
# The engine gave up: vLLM and SGLang say so in the place of a reason.
_BROKEN = frozenset(("abort", "error"))


class ChatDecoder:
    """Decodes one answer. `new_id` mints ids of calls that come without; `logprobs` says whether any were asked for."""

    def __init__(self, new_id: Callable[[], str], *, logprobs: bool = False) -> None:
        self.complete = False
        self._usage = Usage()
        self._reason: Reason | None = None
        self._said: _Said = _Said()
        self._calls = CallBook(new_id)
        self._logprobs = LogprobTail() if logprobs else None

    def feed(self, data: bytes) -> list[TurnEvent]:
        """The events of one chunk, the payload of a server-sent event. Raises `EngineFault`."""
        if data == b"[DONE]":
            return self.end()
        return [] if self.complete else self._read(data)

    def whole(self, body: bytes) -> list[TurnEvent]:
        """The events of an answer that is not a stream. Raises `EngineFault`."""
        events = self._read(body)
        if self._reason is None:
            raise EngineFault("The worker's answer holds no finished choice.")
        return events + self.end()

    def end(self) -> list[TurnEvent]:
        """The stream is over: the turn's last events, or none when it was cut. Raises `EngineFault`."""
        if self._reason is None or self.complete:
            return []
        self.complete = True
        events = self._said.close() + self._calls.close()
        if not self._calls.any:
            events += self._said.blank(self._logprobs)
        reason = "tool_calls" if self._calls.any and self._reason == "stop" else self._reason
        if not self._calls.any and reason == "tool_calls":
            reason = "stop"
        return [*events, TurnDone(reason, self._usage)]

    def _read(self, data: bytes) -> list[TurnEvent]:
        try:
            chunk = _chunk.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise EngineFault(f"The worker's answer cannot be read: {error}.") from None
        if (chunk.error is not NULL and bytes(chunk.error) != b"null") or chunk.object == "error":
            reported = read_error(data)
            raise EngineFault(reported.message or "The worker reported an error.", reported)
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        events: list[TurnEvent] = []
        for choice in chunk.choices or ():
            if choice.index in (0, None):
                events += self._choice(choice)
        return events

    def _choice(self, choice: Choice) -> list[TurnEvent]:
        delta = choice.delta or choice.message
        if self._logprobs is not None and bytes(choice.logprobs) != b"null":
            self._logprobs.add(choice.logprobs)
        events = [] if delta is None else self._delta(delta)
        if choice.finish_reason is not None:
            if choice.finish_reason in _BROKEN:
                raise EngineFault(f"The worker ended the turn with '{choice.finish_reason}'.", EngineError())
            self._reason = _REASONS.get(choice.finish_reason, "stop")
        return events

    def _delta(self, delta: Delta) -> list[TurnEvent]:
        events: list[TurnEvent] = []
        thought = delta.reasoning_content or delta.reasoning
        if self._logprobs is not None and not delta.content and (thought or delta.tool_calls):
            # They are of tokens that are not in the text.
            self._logprobs.clear()
        if thought:
            events += self._calls.close() + self._said.think(thought)
        if delta.content:
            if self._calls.open and not delta.content.isspace():
                events += self._calls.close()
            events += self._said.say(delta.content, self._logprobs)
        if delta.refusal:
            events += self._calls.close() + self._said.refuse(delta.refusal)
        if delta.tool_calls:
            events += self._said.close() + self._calls.add(delta.tool_calls)
        return events


class _Said:
    """The message or the thought that is being written, and white space that may become part of a message."""

    def __init__(self) -> None:
        self._thought: list[str] = []
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._held: list[str] = []

    def think(self, text: str) -> list[TurnEvent]:
        events = self._close_message()
        self._thought.append(text)
        return [*events, ReasoningDelta(text)]

    def say(self, text: str, logprobs: LogprobTail | None) -> list[TurnEvent]:
        if self._text:
            self._text.append(text)
            return [TextDelta(text, _taken(logprobs))]
        if text.isspace():
            self._held.append(text)
            return []
        events = self._close_thought()
        if self._held:
            text = "".join((*self._held, text))
            self._held.clear()
        self._text.append(text)
        return [*events, TextDelta(text, _taken(logprobs))]

    def refuse(self, text: str) -> list[TurnEvent]:
        events = self._close_thought()
        self._refusal.append(text)
        return [*events, RefusalDelta(text)]

    def close(self) -> list[TurnEvent]:
        """End the open item."""
        return self._close_thought() + self._close_message()

    def blank(self, logprobs: LogprobTail | None) -> list[TurnEvent]:
        """The held white space, as the message it is when there are no calls."""
        if not self._held:
            return []
        text = "".join(self._held)
        self._held.clear()
        return [TextDelta(text, _taken(logprobs)), ItemDone(Message("assistant", (Text(text),)))]

    def _close_thought(self) -> list[TurnEvent]:
        if not self._thought:
            return []
        done = ItemDone(Reasoning("".join(self._thought)))
        self._thought.clear()
        return [done]

    def _close_message(self) -> list[TurnEvent]:
        parts: list[Part] = []
        if self._text:
            parts.append(Text("".join(self._text)))
        if self._refusal:
            parts.append(Refusal("".join(self._refusal)))
        self._text.clear()
        self._refusal.clear()
        return [ItemDone(Message("assistant", tuple(parts)))] if parts else []


def _taken(logprobs: LogprobTail | None) -> Raw | None:
    return None if logprobs is None else logprobs.take()


def _usage(body: UsageBody) -> Usage:
    cached = body.prompt_tokens_details.cached_tokens if body.prompt_tokens_details else body.prompt_cache_hit_tokens
    details = body.completion_tokens_details
    reasoning = (details.reasoning_tokens if details else None) or body.reasoning_tokens
    return Usage(body.prompt_tokens or 0, cached or 0, body.completion_tokens or 0, reasoning or 0)


def is_whole(start: bytes) -> bool:
    """Whether an answer that begins with `start` is one JSON object rather than a stream."""
    return start.lstrip()[:1] == b"{"
