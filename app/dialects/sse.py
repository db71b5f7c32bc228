"""Server-sent events, read without I/O: bytes in, however they were cut, whole events out.

Follows the event stream format of the HTML standard (https://html.spec.whatwg.org/multipage/server-sent-events.html):
lines end with LF, CR or CRLF, `:` begins a comment, several `data` lines are joined with LF, an event without data is
none. `id` and `retry` are about reconnecting, which nobody does here, and are dropped. Payloads stay bytes: whoever
knows what they are decodes them, and a character cut in two needs no care.
"""

from __future__ import annotations

from msgspec import Struct

_BOM = b"\xef\xbb\xbf"
_LF = 10


class SseTooLarge(Exception):
    """One event is larger than the limit."""


class SseEvent(Struct, frozen=True):
    """One event. `kind` is its `event` field, empty when it has none."""

    data: bytes
    kind: bytes = b""


class SseParser:
    """Reads one stream. `max_event` limits what one event, or one line that does not end, may hold, in bytes."""

    def __init__(self, max_event: int) -> None:
        self._max_event = max_event
        self._tail: list[bytes] = []  # pieces of a line whose end has not come
        self._data: list[bytes] = []
        self._size = 0  # of _tail and _data
        self._kind = b""
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that `chunk` completes. Raises `SseTooLarge`."""
        if self._after_cr and chunk:
            # The second half of a CRLF ends nothing more.
            self._after_cr = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
        if not chunk:
            return []
        if self._is_one_event(chunk):
            self._at_start = False
            return [SseEvent(chunk[6:-2])]
        if b"\n" not in chunk and b"\r" not in chunk:
            self._keep(self._tail, chunk)
            return []
        if self._tail:
            self._tail.append(chunk)
            chunk = b"".join(self._tail)
            self._tail.clear()
            self._size = sum(len(piece) + 1 for piece in self._data)
        if self._at_start:
            self._at_start = False
            chunk = chunk.removeprefix(_BOM)
        self._after_cr = chunk.endswith(b"\r")
        lines = chunk.splitlines()
        rest = b"" if self._after_cr or chunk.endswith(b"\n") else lines.pop()
        events = self._lines(lines)
        if rest:
            self._keep(self._tail, rest)
        return events

    def end(self) -> list[SseEvent]:
        """The stream is over. An event whose lines are whole counts, though the standard wants a blank line after it:
        not every engine sends the last one."""
        return [] if self._tail else self._lines([b""])

    def _is_one_event(self, chunk: bytes) -> bool:
        """Whether `chunk` is one plain event and nothing else, which is how most chunks of most engines come."""
        return (
            chunk.startswith(b"data: ")
            and 6 < chunk.find(b"\n") == len(chunk) - 2
            and chunk.endswith(b"\n\n")
            and b"\r" not in chunk
            and not (self._tail or self._data or self._kind)
            and len(chunk) <= self._max_event
        )

    def _lines(self, lines: list[bytes]) -> list[SseEvent]:
        events: list[SseEvent] = []
        for line in lines:
            if not line:
                if self._data:
                    data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    if data:
                        events.append(SseEvent(data, self._kind))
                    self._data.clear()
                    self._size = 0
                self._kind = b""
            elif line.startswith(b"data:"):
                self._keep(self._data, line[6:] if line.startswith(b"data: ") else line[5:])
            elif line.startswith(b"event:"):
                self._kind = line[6:].removeprefix(b" ")
            elif line == b"data":
                self._keep(self._data, b"")
        return events

    def _keep(self, where: list[bytes], piece: bytes) -> None:
        self._size += len(piece) + 1
        if self._size > self._max_event:
            raise SseTooLarge(f"an event of more than {self._max_event} bytes")
        where.append(piece)
