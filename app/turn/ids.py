"""Ids of the things the API shows, minted by an injected source so that runs can be replayed exactly."""

from __future__ import annotations

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


def is_well_formed(value: str) -> bool:
    """Whether the API would accept `value` as an id: letters, numbers, underscores, dashes."""
    return _ID.match(value) is not None
