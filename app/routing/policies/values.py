"""What a policy may look at. Nothing else: no clock, no dice, no state, so every choice can be replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import xxhash
from msgspec import Struct

from app.routing.rates import Rate


class Ask(Struct, frozen=True, kw_only=True, gc=False):
    """The turn that needs a worker.

    `serial` counts the turns of the fleet. `draws` are two fresh numbers in [0, 1). `tokens` is the length of the
    prompt, `head` a hash of its beginning. `key` is what the client wants its turns kept together by, and `stuck` the
    worker that its last turn with this key went to. `since` is when the turn first came, if it was placed before.
    """

    serial: int = 0
    draws: tuple[float, float] = (0.0, 0.0)
    tokens: int = 0
    head: int = 0
    key: str | None = None
    stuck: str | None = None
    since: float | None = None


class Field(Struct, frozen=True, kw_only=True, gc=False):
    """The workers that may take a turn: one column for each thing known of them, all in the same order.

    `inflight` counts the turns each has, others' as far as its engine tells. `backlog_secs` is the reading it still has
    to do for turns that were sent to it, `held_secs` for turns that are held back for it and others' that wait there,
    `rest_secs` for what is left of turns that it reads in parts.
    `cached` is how many tokens of the prompt it holds. `rates` say how it reads, and none of them is quicker than
    `quickest`. `busy` is the share of its time that it lately spent reading for this gateway, `memory` the share of its
    cache's memory that turns hold, if its engine tells, `regret` the share of what its cache gave up lately that was
    asked for again.
    """

    ids: Sequence[str]
    inflight: Sequence[float]
    backlog_secs: Sequence[float]
    held_secs: Sequence[float]
    rest_secs: Sequence[float]
    cached: Sequence[int]
    rates: Sequence[Rate]
    quickest: Rate
    busy: Sequence[float]
    memory: Sequence[float]
    regret: Sequence[float]


# Returns the index of the chosen worker. There is at least one worker, and their order is stable.
Policy: TypeAlias = Callable[[Ask, Field], int]


def affinity(key: str | int, worker_id: str) -> int:
    """How much `key` wants to be at the worker: its place is where this is highest (rendezvous hashing).

    When a worker leaves, only its own keys move; when one comes, it takes its share from all the others evenly.
    """
    return xxhash.xxh3_64_intdigest(f"{key}\0{worker_id}".encode())
