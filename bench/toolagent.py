"""Requests of agents with long shared prompts, generated: short sessions that come whatever was answered.

A surrogate for Mooncake's `toolagent` trace, of which no copy was to be had; drawn so that its published statistics
come out (`PUBLISHED`). Not known are how many system prompts there were, how unevenly they were used and how long
sessions went on; what is assumed is in `Mix`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from msgspec import Struct

from app.simulator.service import Request
from bench.crowd import asked
from bench.sessions import Session, Spread, Turn, any_kind

PUBLISHED: Mapping[str, float] = {"requests": 23_608, "prompt_mean": 8_596, "answer_mean": 182, "reuse": 0.59}


class Mix(Struct, frozen=True, kw_only=True):
    """Lengths in tokens, times in seconds. Sessions come at random, as many as make `requests` in `secs`.

    A session is one of `kinds`, the second half as frequent as the first and so on, each with a preamble of its own.
    Behind it comes `opening`; there is another turn with a chance of `goes_on`, longer by the answer and `growth`,
    after a `gap`.
    """

    requests: int = 23_608
    secs: float = 3_600.0
    kinds: int = 60
    preamble: Spread = Spread(3_500, 0.6)
    opening: Spread = Spread(1_700, 1.25)
    longest: int = 120_000
    goes_on: float = 0.3
    growth: Spread = Spread(900, 1.0)
    answer: Spread = Spread(110, 1.0)
    gap: Spread = Spread(20, 0.8)


def session(number: int, mix: Mix) -> Session:
    """The session of that number."""
    rng = random.Random(f"toolagent {number}")
    kind = any_kind(rng, mix.kinds)
    preamble = int(mix.preamble.draw(random.Random(f"toolagent kind {kind}")))
    tokens, gap, turns = preamble + int(mix.opening.draw(rng)), 0.0, list[Turn]()
    while True:
        output = int(mix.answer.draw(rng)) + 1
        turns.append(Turn(gap, min(tokens, mix.longest), output, 0))
        tokens += output + int(mix.growth.draw(rng))
        gap = mix.gap.draw(rng)
        if rng.random() >= mix.goes_on or tokens > mix.longest:
            return Session(number, kind, preamble, turns)


ASSUMED = Mix()


def toolagent(speed: float, block_tokens: int, mix: Mix = ASSUMED) -> list[Request]:
    """The requests in the order in which they come, `speed` times as fast."""
    rng, begins, number = random.Random("toolagent"), 0.0, 0
    found: list[tuple[float, Session, Turn]] = []
    while (begins := begins + rng.expovariate(mix.requests * (1 - mix.goes_on) / mix.secs)) < mix.secs:
        one, due = session(number, mix), begins
        number += 1
        for turn in one.turns:
            due += turn.pause
            if due < mix.secs:
                found.append((due, one, turn))
    found.sort(key=lambda each: each[0])
    return [asked(place, one, turn, due / speed, block_tokens) for place, (due, one, turn) in enumerate(found)]
