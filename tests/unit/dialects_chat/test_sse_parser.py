"""Server-sent events, however they are cut."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.dialects.sse import SseEvent, SseParser, SseTooLarge


def events_of(*chunks: bytes, limit: int = 10_000) -> list[SseEvent]:
    parser = SseParser(limit)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def naive(stream: bytes) -> list[SseEvent]:
    """The standard's algorithm, word for word, over a whole stream."""
    events: list[SseEvent] = []
    data, kind = b"", b""
    *lines, _unfinished = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))
    for line in lines:
        if not line:
            if data.removesuffix(b"\n"):
                events.append(SseEvent(data.removesuffix(b"\n"), kind))
            data, kind = b"", b""
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data += value + b"\n"
        elif field == b"event":
            kind = value
    return events


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_may_end_in_three_ways(end: bytes) -> None:
    stream = b"event: x@data: one@data:two@@: comment@@data: three@id: 7@retry: 5@@".replace(b"@", end)
    assert events_of(stream) == [SseEvent(b"one\ntwo", b"x"), SseEvent(b"three")]


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data\n\n", []),
        (b"data:\n\n", []),
        (b"data\ndata\n\n", [b"\n"]),
        (b"data: a\ndata\n\n", [b"a\n"]),
        (b": keepalive\n\n", []),
        (b"event: x\n\ndata: a\n\n", [b"a"]),
        (b"datax: a\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: \xef\xbb\xbf\n\n", [b"\xef\xbb\xbf"]),
        (b"\n\n\ndata: a\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\x0bb\x1cc\xc2\x85d\n\n", [b"a\x0bb\x1cc\xc2\x85d"]),
        (b"data: unfinished\n", []),
    ],
)
def test_fields(stream: bytes, found: list[bytes]) -> None:
    assert [event.data for event in events_of(stream)] == found
    assert events_of(stream) == naive(stream)


def test_an_event_is_there_as_soon_as_its_blank_line_is() -> None:
    parser = SseParser(100)
    assert parser.feed(b"data: a\r\n") == []
    assert parser.feed(b"\r") == [SseEvent(b"a")]
    assert parser.feed(b"\ndata: b\n\n") == [SseEvent(b"b")]


@pytest.mark.parametrize(
    "chunks",
    [
        [b"event: x\n", b"data: a\n\n"],
        [b"data: a\n", b"data: b\n\n"],
        [b"data: a", b"data: b\n\n"],
        [b"data: a\rdata: b\n\n"],
        [b"data: a\r\n\n"],
        [b"data: a\n\ndata: b\n\n"],
        [b"data: \n\n", b"data: a\n\n"],
        [b"data: a\n\n", b"\xef\xbb\xbfdata: b\n\n"],
    ],
)
def test_chunks_that_look_like_one_event(chunks: list[bytes]) -> None:
    assert events_of(*chunks) == naive(b"".join(chunks))


def test_the_end_of_a_stream_may_stand_for_the_last_blank_line() -> None:
    parser = SseParser(100)
    assert parser.feed(b"data: [DONE]\n") == []
    assert parser.end() == [SseEvent(b"[DONE]")]
    cut = SseParser(100)
    cut.feed(b"data: one\ndata: tw")
    assert cut.end() == []


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 100],
        [b"x" * 60, b"x" * 60],
        [b"data: " + b"x" * 40 + b"\n"] * 3,
        [b"data\n"] * 120,
        [b"data: " + b"x" * 101 + b"\n\n"],
    ],
)
def test_an_event_has_a_limit(chunks: list[bytes]) -> None:
    with pytest.raises(SseTooLarge):
        events_of(*chunks, limit=100)


def test_the_limit_is_for_one_event_not_for_the_stream() -> None:
    assert len(events_of(*[b"data: " + b"x" * 50 + b"\n", b"\n"] * 100, limit=100)) == 100
    assert len(events_of(b"data: x\n\n: comment\n\n" * 100, limit=100)) == 100


LINES = st.sampled_from(
    [b"data: a", b"data:", b"data", b"data: \xf0\x9f\x90\x91", b"event: x", b": c", b"", b"", b"", b"id: 1", b"junk"]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@settings(deadline=None)
@given(
    st.lists(st.tuples(LINES, ENDS), max_size=20),
    st.booleans(),
    st.lists(st.integers(0, 200), max_size=20),
)
def test_any_chunking_gives_the_same_events(lines: list[tuple[bytes, bytes]], bom: bool, cuts: list[int]) -> None:
    stream = (b"\xef\xbb\xbf" if bom else b"") + b"".join(line + end for line, end in lines)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    assert events_of(*chunks) == naive(stream)
    assert events_of(*(stream[at : at + 1] for at in range(len(stream)))) == naive(stream)
