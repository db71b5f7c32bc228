"""Keeps the sequence of one publisher's messages whole. Pure: it says what to do with each message that comes.

Numbers count up from 0 as long as the engine lives. A number that was skipped is asked for; one that is lower than what
was seen live means that the engine began anew. After a replay, messages that were under way meanwhile come once more.
"""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """What to do with a message."""

    TAKE = "take"
    SKIP = "skip"
    # The engine began anew: what was known is void. Then offer the message again.
    RESTART = "restart"
    # Some before it are missing: ask for them, and offer it again.
    MISSING = "missing"


class Follower:
    """`last` is the number of the last message that was taken; -1 at first."""

    def __init__(self) -> None:
        self.last = -1
        self._live = -1
        self.gaps = 0

    @property
    def wanted(self) -> int:
        """The number of the message that should come next."""
        return self.last + 1

    def offer(self, number: int) -> Verdict:
        """A message came from the stream."""
        if number <= self._live:
            self.last = self._live = -1
            return Verdict.RESTART
        if number <= self.last:
            self._live = number
            return Verdict.SKIP
        if number > self.last + 1:
            self.gaps += 1
            return Verdict.MISSING
        self.last = self._live = number
        return Verdict.TAKE

    def replayed(self, number: int) -> bool:
        """A message came that was asked for; whether it is to be taken."""
        if number != self.last + 1:
            return False
        self.last = number
        return True

    def give_up(self, number: int) -> None:
        """What is missing before `number` cannot be had; go on with that message, which is taken."""
        self.last = self._live = number
