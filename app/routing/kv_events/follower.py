"""Keeps the sequence of one publisher's messages whole. Pure: it says what to do with each message that comes.

Numbers count up from 0 as long as the engine lives. A number that was skipped is asked for; one that is lower than what
was seen live means that the engine began anew. After a replay, messages that were under way meanwhile come once more.

An engine that began anew while nobody listened may be past the number of the last message already. So a replay begins
with that message, and if it is another one now, it is another engine. `mark` is what messages are told apart by.
"""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """What to do with a message."""

    TAKE = "take"
    SKIP = "skip"
    # The engine began anew: what was known is void. Then offer the message again, or ask for all again.
    RESTART = "restart"
    # Some before it are missing: ask for them, and offer it again. In a replay: they cannot be had.
    MISSING = "missing"


class Follower:
    """`last` is the number of the last message that was taken; -1 at first."""

    def __init__(self) -> None:
        self.last = -1
        self._mark = 0
        self._live = -1
        self.gaps = 0

    @property
    def since(self) -> int:
        """The number to ask for messages from."""
        return max(self.last, 0)

    def offer(self, number: int, mark: int = 0) -> Verdict:
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
        self.give_up(number, mark)
        return Verdict.TAKE

    def replayed(self, number: int, mark: int = 0) -> Verdict:
        """A message came that was asked for."""
        if number == self.last and mark != self._mark:
            self.last = self._live = -1
            return Verdict.RESTART
        if number <= self.last:
            return Verdict.SKIP
        if number > self.last + 1:
            return Verdict.MISSING
        self.last, self._mark = number, mark
        return Verdict.TAKE

    def give_up(self, number: int, mark: int = 0) -> None:
        """What is missing before `number` cannot be had; go on with that message, which is taken."""
        self.last = self._live = number
        self._mark = mark
