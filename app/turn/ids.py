"""Ids of the things the API shows, minted by an injected source so that runs can be replayed exactly."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Protocol

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")


class IdSource(Protocol):
    """Mints ids: `new("resp")` → `resp_…`."""

    def new(self, prefix: str) -> str: ...


class RandomIds:
    """128 random bits in hex: not guessable, unique without coordination."""

    def new(self, prefix: str) -> str:
        return f"{prefix}_{secrets.token_hex(16)}"


class CountedIds:
    """Deterministic ids for tests and replays: `msg_1`, `msg_2`, `fc_1` …"""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def new(self, prefix: str) -> str:
        count = self._counts[prefix] = self._counts.get(prefix, 0) + 1
        return f"{prefix}_{count}"


class SeededIds:
    """Ids that follow from a secret seed: who has the seed can mint the same ids again, in the same order."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._count = 0

    def new(self, prefix: str) -> str:
        self._count += 1
        digest = hashlib.blake2b(b"%d" % self._count, key=self._seed, digest_size=16)
        return f"{prefix}_{digest.hexdigest()}"


def nth_of_turn(stem: str, number: int) -> str:
    """The id of the `number`th call (from 1) of the turn whose first call has the id `stem`."""
    return stem if number == 1 else f"{stem}_{number}"


def part_of(identity: str, number: int) -> str:
    """The id of the `number`th part (from 1) of what has the id `identity`: the first goes by the id of the whole."""
    return identity if number == 1 else f"{identity}-{number}"


def whole_of(identity: str) -> str:
    """The id of what this is the id of a part of."""
    return identity.partition("-")[0]


def is_well_formed(value: str) -> bool:
    """Whether the API would accept `value` as an id: letters, numbers, underscores, dashes."""
    return _ID.match(value) is not None
