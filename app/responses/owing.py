"""Ends that were told to a client when nothing could be written: they are owed to the log, and paid once it can be.

A response whose end could not be stored was told as failed, so failed it has to be, however much of it had come to
pass. Until that is written its run stays this process's: nobody else takes it over to tell another end, and whoever
asks for it here is answered from memory. What dies with the process is such an end that was not written yet; then the
run ends as any that was interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from msgspec import Struct

from app.dialects.openai_responses.events import Event
from app.responses.ports import LeaseLost, Ports, StoredResponse
from app.responses.runs import Run
from app.turn.errors import GatewayError, Unavailable

_log = logging.getLogger(__name__)


class Debt(Struct, frozen=True):
    """A run that is over, all that was told of it, and what to store of it; None: nothing can be."""

    run: Run
    told: Sequence[Event]
    response: StoredResponse | None


class Silent:
    """A `Witness` for what was told already."""

    def durable(self, events: Sequence[Event]) -> None:
        """It was told."""

    def broken(self, error: GatewayError) -> None:
        """Whoever writes hears of it."""


class Owing:
    """What this process owes. `paid` is told of each run that owes nothing any more."""

    def __init__(self, ports: Ports, paid: Callable[[Run], None]) -> None:
        self._ports = ports
        self._paid = paid
        self._owed: dict[tuple[str, str], Debt] = {}

    def owe(self, run: Run, response: StoredResponse | None) -> None:
        """Write what the run told when that is possible again."""
        run.owe()
        self._owed[run.tenant, run.id] = Debt(run, run.log.told, response)

    async def pay(self) -> None:
        """Write what is owed. Raises `Unavailable`: then the rest is still owed."""
        for key, debt in list(self._owed.items()):
            try:
                await self._pay(debt)
            except LeaseLost:
                _log.warning("the end of %s was told here and is another elsewhere", debt.run.id)
            except Unavailable:
                raise
            except GatewayError as error:
                _log.warning("%s cannot be stored: %s", debt.run.id, error.message)
                self._owed[key] = Debt(debt.run, debt.told, None)
                continue
            else:
                _log.info("the end of %s is written", debt.run.id)
            del self._owed[key]
            self._paid(debt.run)

    async def _pay(self, debt: Debt) -> None:
        run = debt.run
        assert run.lease is not None
        # More may be written than we heard of: a commit can come to pass without our hearing of its end.
        entries = await self._ports.runs.log(run.lease)
        written = sum(len(entry.events) for entry in entries)
        tail = self._ports.runs.tail(run.lease, entries, Silent())
        await tail.conclude(debt.told[written:], debt.response)
