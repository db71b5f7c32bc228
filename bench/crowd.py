"""A closed loop: so many sessions are alive at once, and each asks for its next turn once it has its answer. Pure.

When a session is over the next one begins, in the order of their numbers. The first `counted` ones are what is
measured, all of them to their end, so every router is measured on the same turns whatever it did to them. Sessions
behind those only keep the others company: without them the last of the counted ones would have the workers to
themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.simulator.service import Request
from bench.sessions import Session, Turn


def asked(number: int, one: Session, turn: Turn, at: float, block_tokens: int) -> Request:
    """The request of a session's turn."""
    keys = one.keys(turn.version, turn.tokens, block_tokens)
    after = one.keys(turn.version, turn.tokens + turn.output, block_tokens)
    return Request(number, at, turn.tokens, turn.output, keys, after)


class Crowd:
    """`session` gives the session of a number. Each is asked for one turn after the other, so many seconds `late`."""

    def __init__(
        self,
        session: Callable[[int], Session],
        live: int,
        counted: int,
        block_tokens: int,
        late: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.counted: list[Request] = []
        self._done = 0
        self._until = 0.0
        self._session = session
        self._live = live
        self._counted = counted
        self._begun = 0
        self._asked = 0
        self._places: dict[int, tuple[Session, int]] = {}
        self._block_tokens = block_tokens
        self._late = late
        self._left = counted

    @property
    def rate(self) -> float:
        """Turns a second, until the last counted session was over."""
        return self._done / self._until

    def begin(self) -> list[Request]:
        """The first requests."""
        return [self._next(0.0) for _ in range(self._live)]

    def ended(self, request: Request) -> Sequence[Request]:
        """What is asked because that request has its answer; nothing any more when the last counted session is over."""
        one, place = self._places.pop(request.number)
        if self._left:
            self._done, self._until = self._done + 1, request.ended
        if place + 1 < len(one.turns):
            return [self._ask(one, place + 1, request.ended)] if self._left else []
        self._left -= one.number < self._counted
        return [self._next(request.ended)] if self._left else []

    def _next(self, now: float) -> Request:
        self._begun += 1
        return self._ask(self._session(self._begun - 1), 0, now)

    def _ask(self, one: Session, place: int, now: float) -> Request:
        at = now + one.turns[place].pause + self._late()
        request = asked(self._asked, one, one.turns[place], at, self._block_tokens)
        self._asked += 1
        self._places[request.number] = one, place
        if one.number < self._counted:
            self.counted.append(request)
        return request


def one_by_one(sessions: Sequence[Session], block_tokens: int) -> list[Request]:
    """The same requests where there is nobody else: one session after the other, and no pauses."""
    turns = [(one, turn) for one in sessions for turn in one.turns]
    return [asked(number, one, turn, 0.0, block_tokens) for number, (one, turn) in enumerate(turns)]
