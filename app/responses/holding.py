"""A run that is not remembered, in a conversation: it holds the conversation while it is made, and leaves nothing.

Its row says which conversation is held, by whom and until when. A process that dies leaves the row behind as it leaves
those of other runs, and whoever finds it when its time has run out takes it away.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from app.dialects.openai_responses.events import Event
from app.responses.ledger import Rider
from app.responses.ports import Lease, RunStore, StoredResponse, Tail
from app.turn.errors import GatewayError
from app.turn.events import InEvent

_log = logging.getLogger(__name__)


class Holding:
    """The `Tail` of such a run: what is put goes to `tail`, and the conversation is free before the end is told."""

    full = False

    def __init__(self, runs: RunStore, lease: Lease, tail: Tail) -> None:
        self._runs = runs
        self._lease = lease
        self._tail = tail

    def put(self, step: InEvent | None, events: Sequence[Event]) -> None:
        """Tell."""
        self._tail.put(step, events)

    def ride(self, rider: Rider) -> bool:
        """Nothing is written."""
        return self._tail.ride(rider)

    async def flush(self) -> None:
        """There is nothing to wait for."""

    async def conclude(self, events: Sequence[Event], response: StoredResponse | None) -> None:
        """Let go of the conversation, and tell the last events."""
        try:
            await self._runs.end(self._lease)
        except GatewayError as error:
            _log.warning("the conversation of %s is held until its lease ends: %s", self._lease.response_id, error)
        await self._tail.conclude(events, response)
