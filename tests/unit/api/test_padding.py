"""What padding does to deltas, and to nothing else."""

from __future__ import annotations

import json

import pytest

from app.api.padding import STEP, is_wanted, pad
from app.dialects.openai_responses.encode import Event
from app.dialects.openai_responses.wire import StreamOptions


@pytest.mark.parametrize("length", range(0, 140, 7))
def test_a_padded_delta_is_of_a_round_length_and_says_the_same(length: int) -> None:
    said = {"type": "response.output_text.delta", "sequence_number": 4, "delta": "x" * length}
    event = Event(4, said["type"], json.dumps(said).encode())
    padded = pad(event)
    assert len(padded.data) % STEP == 0
    told = json.loads(padded.data)
    assert told.pop("obfuscation")
    assert told == said
    assert (padded.sequence_number, padded.type) == (4, event.type)


@pytest.mark.parametrize("usual", [True, False])
def test_who_says_nothing_gets_what_is_usual(usual: bool) -> None:
    assert is_wanted(None, usual=usual) is usual
    assert is_wanted(StreamOptions(), usual=usual) is usual
    for asked in (True, False):
        assert is_wanted(StreamOptions(include_obfuscation=asked), usual=usual) is asked


def test_two_paddings_differ() -> None:
    event = Event(0, "response.output_text.delta", b'{"type":"response.output_text.delta"}')
    assert pad(event).data != pad(event).data


def test_other_events_stay_as_they_are() -> None:
    event = Event(0, "response.output_text.done", b"{}")
    assert pad(event) is event
