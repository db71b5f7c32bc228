"""Responses as somebody follows them: made here, or elsewhere, or first the one and then the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from app.dialects.openai_responses.encode import Event, body_from
from app.responses.ports import EventStore, StoredItem, StoredResponse
from app.responses.runs import Run
from app.turn.errors import InvalidRequest


class Followed(Protocol):
    """A response somebody follows."""

    def follow(self, after: int = -1) -> AsyncIterator[Sequence[Event]]: ...

    async def result(self) -> bytes: ...

    def items(self) -> tuple[StoredItem, ...]: ...

    def detach(self) -> None: ...

    def steer(self) -> None: ...


class Here:
    """A run of this process. `own`: it is followed by the one who started it, and may end when they leave."""

    def __init__(self, run: Run, events: EventStore, *, own: bool) -> None:
        self._run = run
        self._events = events
        self._own = own
        self.result = run.result
        self.items = run.items

    def follow(self, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        """Batches of events after sequence number `after`, until the response is over, wherever that is.

        Raises `Unavailable` when it goes on elsewhere and its log cannot be read.
        """
        return self._run.log.follow(after, self._elsewhere)

    def _elsewhere(self, after: int) -> AsyncIterator[Sequence[Event]] | None:
        return self._events.follow(self._run.tenant, self._run.id, after) if self._run.left else None

    def detach(self) -> None:
        """Who follows is gone."""
        if self._own:
            self._run.detach()

    def steer(self) -> None:
        """Only who started a response may steer it."""
        if self._own:
            self._run.steer()


class Elsewhere:
    """A response that is not made for the one who follows it: its log, and what it was when it was asked for."""

    def __init__(self, events: EventStore, tenant: str, response_id: str, body: bytes) -> None:
        self._events = events
        self._tenant = tenant
        self._id = response_id
        self._body = body

    def follow(self, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        """Batches of events after sequence number `after`, until the response is over."""
        return self._events.follow(self._tenant, self._id, after)

    async def result(self) -> bytes:
        """What it was; nobody waits for a response in the background."""
        return self._body

    def items(self) -> tuple[StoredItem, ...]:
        """None of them are here."""
        return ()

    def detach(self) -> None:
        """Nothing depends on who follows."""

    def steer(self) -> None:
        """Only who started a response may steer it."""


def no_event(number: int) -> InvalidRequest:
    """What is wrong with asking for what comes after an event that there is not."""
    message = f"The response has no event {number}. Give the sequence_number of the last event that you have."
    return InvalidRequest(message, param="starting_after", code="invalid_value")


def body_of(found: StoredResponse) -> bytes:
    """A response that is over, as JSON."""
    return body_from(found.snapshot, found.output)
