"""What gateways said, read afterwards: every stream by the stream checker, every body by its contract.

A response may be told several times: while it is made, again from its beginning, from somewhere in its middle, by
another process after the first has died. Every telling has to agree with all others, and their union has to be legal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from app.dialects.openai_responses.check import StreamCheck, check_sse
from app.dialects.openai_responses.check_socket import check_socket
from app.dialects.openai_responses.check_tables import FOREIGN, TERMINAL
from tests.support.bodies import STEERING, body_faults, event_faults

# A server that stops leaves a turn that another one tells again; the open contract has no word for that.
BROKE_OFF = ("is incomplete, and so must be the response", "an item ended incomplete, so it must be the last")
# These belong to a telling and not to the event.
OF_A_TELLING = ("obfuscation", "stream_id")

Json = dict[str, Any]


class Exchange:
    """A request and what was said to it."""

    def __init__(self, asked: list[str]) -> None:
        self.method, self.path, self.query = asked
        self.status = 0
        self.content_type = ""
        self.body = b""
        self.frames: list[Json] = []
        self.ended = False

    def hear(self, kind: str, value: Any) -> None:
        """A line of the transcript."""
        if kind == "began":
            self.status, self.content_type = value
        elif kind == "body":
            self.body += value.encode("latin-1")
        elif kind == "frame":
            self.frames.append(json.loads(value))
        elif kind == "ended":
            self.ended = True

    def __str__(self) -> str:
        return f"{self.method} {self.path}{'?' if self.query else ''}{self.query} ({self.status})"


class Tale:
    """All that was told of one response."""

    def __init__(self) -> None:
        self.events: dict[int, Json] = {}
        self.cut = False

    def hear(self, event: Json) -> Iterator[str]:
        """An event, perhaps not for the first time."""
        plain = {name: value for name, value in event.items() if name not in OF_A_TELLING}
        number = event.get("sequence_number", -1)
        if self.events.setdefault(number, plain) != plain:
            yield f"event {number} was told otherwise before"

    def faults(self, *, again: bool) -> Iterator[str]:
        """What is wrong with it. `again`: a server may have gone on where another stopped."""
        told = [self.events[number] for number in sorted(self.events)]
        if not told or told[0].get("sequence_number") != 0:
            # Its beginning was told to nobody.
            return
        foreign = any(event["type"] in FOREIGN["openai"] for event in told)
        profile = "openresponses" if foreign else "openai"
        check = StreamCheck(profile)
        for event in told:
            check.feed(event)
        if self.cut or told[-1]["type"] in TERMINAL:
            check.finish(cancelled=told[-1]["type"] not in TERMINAL)
        yield from (each for each in check.violations if not (again and any(words in each for words in BROKE_OFF)))
        for event in told:
            yield from (f"{event['type']}: {fault}" for fault in event_faults(event, profile))


class Reading:
    """The transcripts of one world, as they are read."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.tales: dict[str, Tale] = {}
        self.cancelled: set[str] = set()
        self.files = 0

    def read(self, lines: Iterable[str]) -> None:
        """One gateway's."""
        self.files += 1
        exchanges: dict[int, Exchange] = {}
        for line in lines:
            number, kind, value = json.loads(line)
            if kind == "asked":
                exchanges[number] = Exchange(value)
            else:
                exchanges[number].hear(kind, value)
        for exchange in exchanges.values():
            self.faults += [f"{exchange}: {fault}" for fault in self._exchange(exchange)]

    def conclude(self) -> list[str]:
        """Everything that is wrong."""
        for response_id, tale in self.tales.items():
            self.faults += [f"{response_id}: {fault}" for fault in tale.faults(again=self.files > 1)]
            if tale.cut and response_id not in self.cancelled:
                self.faults.append(f"{response_id}: a stream ended without an end, and nothing shows it was cancelled")
        return self.faults

    def _exchange(self, exchange: Exchange) -> Iterator[str]:
        if exchange.method == "SOCKET":
            yield from self._socket(exchange.frames)
        elif exchange.content_type.startswith("text/event-stream"):
            yield from self._stream(exchange)
        elif exchange.ended and exchange.content_type.startswith("application/json") and exchange.method != "HEAD":
            body = json.loads(exchange.body)
            self.cancelled |= {each["id"] for each in body.get("data", [body]) if each.get("status") == "cancelled"}
            yield from body_faults(exchange.method, exchange.path, exchange.status, body)

    def _stream(self, exchange: Exchange) -> Iterator[str]:
        *blocks, rest = exchange.body.decode().split("\n\n")
        events, done = list(_events(blocks)), "data: [DONE]" in blocks
        if exchange.ended and rest:
            yield "the stream ends in the middle of an event"
        first = int(dict(parse_qsl(exchange.query)).get("starting_after", -1)) + 1
        if events and events[0].get("sequence_number") != first:
            yield f"the stream begins with event {events[0].get('sequence_number')} instead of {first}"
        if exchange.ended and not first:
            # Order and words are judged once for the whole response; this is about the bytes.
            yield from (each for each in check_sse(exchange.body, cancelled=not done) if each.startswith("frame"))
        response_id = exchange.path.split("/")[-1] if exchange.method == "GET" else _id_in(events)
        if response_id is None:
            return
        tale = self.tales.setdefault(response_id, Tale())
        erred = bool(events) and events[-1]["type"] == "error"
        for event in events[: len(events) - erred]:
            yield from tale.hear(event)
        yield from _gaps(events)
        # An error is the end of a telling, and not of the response.
        tale.cut = tale.cut or (exchange.ended and not done and not erred)
        if done and events and events[-1]["type"] not in TERMINAL:
            yield "[DONE] comes before the end"

    def _socket(self, frames: list[Json]) -> Iterator[str]:
        # A client may leave whenever it likes.
        yield from check_socket(frames, closed=True)
        lanes: dict[object, list[Json]] = {}
        for frame in frames:
            lane = lanes.setdefault(frame.get("stream_id"), [])
            if "sequence_number" not in frame or frame["type"].startswith(STEERING):
                yield from body_faults("SOCKET", frame["type"], frame.get("status", 0), frame)
                continue
            lane[:] = [frame] if frame["type"] == "response.created" else [*lane, frame]
            if frame["type"] == "response.created" or len(lane) > 1:
                yield from self.tales.setdefault(_id_in(lane) or "", Tale()).hear(frame)
            else:
                yield f"{frame['type']} belongs to no response"
            if frame["type"] in TERMINAL:
                yield from _gaps(lane)
                lane.clear()


def _events(blocks: Iterable[str]) -> Iterator[Json]:
    for block in blocks:
        for line in block.split("\n"):
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line[6:])


def _id_in(events: list[Json]) -> str | None:
    return next((event["response"]["id"] for event in events if "response" in event), None)


def _gaps(events: list[Json]) -> Iterator[str]:
    numbers = [event.get("sequence_number", -1) for event in events]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        yield f"numbers are not in order: {numbers}"


def faults_in(directory: Path) -> list[str]:
    """What is wrong with the transcripts in a directory, which are those of one world; empty when nothing is."""
    reading = Reading()
    for path in sorted(directory.glob("*.transcript")):
        reading.read(path.read_text("utf-8").splitlines())
    return reading.conclude()
