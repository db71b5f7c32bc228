"""Events of a stream: numbered, encoded once, and framed for server-sent events.

Text deltas are nearly all there is to a stream, so they are put together from bytes that were encoded when their item
began: what is left to do for one is its number and its text.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import msgspec
from msgspec import Raw, Struct

from app.turn.errors import GatewayError

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class Event(Struct, frozen=True, gc=False):
    """An event as it is sent, stored and replayed. `data` is its JSON on one line, type and number included."""

    sequence_number: int
    type: str
    data: bytes


def frame(event: Event) -> bytes:
    """The event as server-sent events have it."""
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), event.data)


def error_event(number: int, error: GatewayError, kind: str) -> Event:
    """The last event of a stream that cannot go on, though its response may: it belongs to no response's log.

    `kind` is the API's name for its kind. What is wrong is said twice, since the two contracts look in two places.
    """
    said = {"code": error.code or kind, "message": error.message, "param": error.param}
    fields = members(**said, error={"type": kind, **said})
    return Event(number, "error", b'{"type":"error","sequence_number":%d,%b}' % (number, fields))


def encode(value: object) -> bytes:
    """JSON on one line. Halves of surrogate pairs, which are no Unicode text, become U+FFFD."""
    try:
        return compact(_encode(value))
    except UnicodeEncodeError:
        return compact(_encode(_well_formed(value)))


def members(**fields: object) -> bytes:
    """The inside of a JSON object."""
    return encode(fields)[1:-1]


def compact(data: bytes | Raw) -> bytes:
    """JSON without line breaks: raw pieces of others may hold some, and would tear a frame apart."""
    data = bytes(data)
    return msgspec.json.format(data, indent=-1) if b"\n" in data or b"\r" in data else data


def scrub(text: str) -> str:
    """The text with unpaired surrogates replaced, and paired ones joined."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _well_formed(value: Any) -> object:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub(str(key)): _well_formed(each) for key, each in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_well_formed(each) for each in cast("list[Any]", value)]
    return value


class Wording(NamedTuple):
    """How a text that comes in pieces is spoken of: its two event types, and the field of the second that holds it."""

    delta: str
    done: str
    field: str


class EventWriter:
    """Makes the events of one response, numbered from 0 without gaps."""

    def __init__(self) -> None:
        self._next = 0

    def event(self, kind: str, fields: bytes) -> Event:
        """The next event. `fields` are the members of its JSON besides type and number."""
        number = self._next
        self._next = number + 1
        return Event(number, kind, b'{"type":"%b","sequence_number":%d,%b}' % (kind.encode(), number, fields))

    def skip(self, count: int) -> None:
        """The next event is the one after these many more."""
        self._next += count

    def go_on(self, number: int) -> None:
        """The next event has this number."""
        self._next = number

    def piece(self, kind: str, before: bytes, middle: bytes, after: bytes) -> Event:
        """The next event, whose JSON is the three pieces with its number between the first two."""
        number = self._next
        self._next = number + 1
        return Event(number, kind, b"%b%d%b%b" % (before, number, middle, after))


class Streamed:
    """A text while it is sent: pieces first, then the whole. `place` are the members that say which text it is.

    `tail` are members that every event of it must have, such as `,"logprobs":[]`.
    """

    __slots__ = ("_before", "_middle", "_place", "_said", "_tail", "_words", "_writer")

    def __init__(self, writer: EventWriter, words: Wording, place: bytes, tail: bytes = b"") -> None:
        self._writer = writer
        self._words = words
        self._place = place
        self._tail = tail + b"}"
        self._before = b'{"type":"%b","sequence_number":' % words.delta.encode()
        self._middle = b',%b,"delta":' % place
        self._said: list[str] = []

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self._said)

    def add(self, text: str, tail: bytes | None = None) -> Event:
        """Say more."""
        try:
            data = _encode(text)
        except UnicodeEncodeError:
            text = scrub(text)
            data = _encode(text)
        self._said.append(text)
        after = data + self._tail if tail is None else b"%b%b}" % (data, tail)
        return self._writer.piece(self._words.delta, self._before, self._middle, after)

    def finish(self, whole: str | None = None, tail: bytes | None = None) -> list[Event]:
        """Say that this was all. What `whole` has beyond what was said is said first.

        What was said stands, even where `whole` says something else: a client cannot unhear it.
        """
        events: list[Event] = []
        said = self.text
        whole = said if whole is None else whole if whole.isascii() else scrub(whole)
        if len(whole) > len(said) and whole.startswith(said):
            events.append(self.add(whole[len(said) :]))
            said = whole
        tail = self._tail[:-1] if tail is None else tail
        fields = b'%b,"%b":%b%b' % (self._place, self._words.field.encode(), _encode(said), tail)
        events.append(self._writer.event(self._words.done, fields))
        return events
