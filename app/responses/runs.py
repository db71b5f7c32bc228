"""Runs: responses being made. A run belongs to the server, not to the request that started it.

The HTTP answer only follows the run's log. A client that disconnects therefore changes nothing for a stored response,
and ends one that is not stored, since nobody could ever read it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

from app.dialects.openai_responses.encode import Event, ResponseEncoder
from app.responses.ledger import Rider
from app.responses.log import EventLog
from app.responses.ports import Lease, LeaseLost, StoredItem, StoredResponse, Tail, Witness
from app.turn.errors import Failure, GatewayError, Unavailable
from app.turn.events import Abort, Cancel, InEvent

_log = logging.getLogger(__name__)

LOCK_LOST = Failure(409, "conversation_lock_lost", "The server lost its hold of the conversation to another response.")
SHUTDOWN = Failure(503, "server_shutting_down", "The server is shutting down; the response was ended.")


class Run:
    """One response in the making: its log, its encoder, and how it ends."""

    def __init__(
        self,
        tenant: str,
        encoder: ResponseEncoder,
        *,
        stored: bool,
        given: tuple[StoredItem, ...],
        background: bool = False,
    ) -> None:
        self.tenant = tenant
        self.id = encoder.response_id
        self.stored = stored
        self.background = background
        self.given = given
        self.encoder = encoder
        self.log = EventLog()
        self.lease: Lease | None = None
        self.tail: Tail = Unwritten(self)
        self.ending: Cancel | Abort | None = None
        self.fault: GatewayError | None = None
        self.handed_over = False
        self.owes = False
        # What was said and may not be told yet.
        self.pending: list[Event] = []
        self.error: GatewayError | None = None
        self.over_and_told = False
        self._before_end: bytes | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self._interruptible = False
        self._steer: Callable[[], bool] | None = None
        self._steered = self._stopping = False

    # ── for those who watch ───────────────────────────────────────────────────

    async def over(self) -> None:
        """Wait until there is nothing left to do here."""
        assert self._task is not None
        await asyncio.wait({self._task})

    async def result(self) -> bytes:
        """The finished response as JSON.

        Raises the `GatewayError` that ended the run when there is nothing else to show for it: no output came to be,
        or what came to be could not be stored.
        """
        assert self._task is not None
        await asyncio.shield(self._task)
        if self.error is not None:
            raise self.error
        return self.encoder.body()

    def body(self) -> bytes:
        """The response as JSON, as far as it may be told: that it has ended is not, before it is stored."""
        return self.encoder.body() if self._before_end is None else self._before_end

    def items(self) -> tuple[StoredItem, ...]:
        """What it is made from, and what has come of it so far, oldest first."""
        return (*self.given, *self.encoder.output())

    def detach(self) -> None:
        """The client that started the run is gone."""
        if not self.stored:
            self.end(Cancel())

    def end(self, ending: Cancel | Abort) -> None:
        """End the run early, if it is not ending already."""
        if self._interruptible and self.ending is None:
            self.ending = ending
            self._interrupt()

    def steer(self) -> None:
        """End where nothing is lost by it, as soon as there is such a place. Does nothing about one that has ended."""
        if self._interruptible and self._steer is not None and self._steer():
            self._steered = True
            self._interrupt()

    def hand_over(self) -> None:
        """Stop here; whoever claims the run goes on."""
        if self._interruptible and self.ending is None:
            self.handed_over = True
            self._interrupt()

    def lapsed(self) -> None:
        """Somebody else makes the run now; of one that nobody can, somebody else has what it held."""
        if self.stored:
            self.broken(LeaseLost("Another server has taken this response over."))
        else:
            self.end(Abort(LOCK_LOST))

    def ride(self, rider: Rider) -> bool:
        """See `Ledger`."""
        return self.tail.ride(rider)

    # ── `Witness` ─────────────────────────────────────────────────────────────

    def durable(self, events: Sequence[Event]) -> None:
        """The events may be told."""
        if self.owes:
            return
        if events:
            last, pending = events[-1].sequence_number, self.pending
            # They are the oldest of them, and mostly all there are.
            rest = pending and pending[-1].sequence_number > last
            self.pending = [event for event in pending if event.sequence_number > last] if rest else []
        self.log.append(events)

    def broken(self, error: GatewayError) -> None:
        """Nothing about the run can be remembered any more."""
        self.fault = error
        if self._interruptible:
            self._interrupt()

    # ── for the one who makes it ──────────────────────────────────────────────

    def begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Start the work; the task belongs to the run."""
        self._task = asyncio.create_task(work, name=f"run {self.id}")
        return self._task

    def ready(self) -> None:
        """The run has what it needs: from here on, errors are the response's, not the request's."""
        self._interruptible = True
        if not self._ready.done():
            self._ready.set_result(None)

    def steered_by(self, steer: Callable[[], bool]) -> None:
        """How to `steer` what makes the run; it says whether that ended it."""
        self._steer = steer

    def refused(self, error: BaseException) -> None:
        """The run never began."""
        if not self._ready.done():
            self._ready.set_exception(error)

    def put(self, step: InEvent | None, events: Sequence[Event]) -> None:
        """Note what happened and what is said about it."""
        self.pending += events
        self.tail.put(step, events)

    def concluding(self) -> None:
        """What is left to do must not be interrupted any more."""
        self._interruptible = False

    def ending_as(self) -> None:
        """From here on the encoder says how the response ended, which others may not hear yet."""
        self._before_end = self.encoder.body()

    def concluded(self) -> None:
        """It is stored, or can be by nobody here: who asks for it now has to ask where it is stored."""
        self.over_and_told = True

    def owe(self) -> None:
        """It cannot be stored now, and was told as failed: whoever asks here is told so too."""
        self.owes, self._before_end = True, None

    @property
    def ends(self) -> bool:
        """Whether the response has ended, and is only still being stored."""
        return self._before_end is not None

    @property
    def waits_for_log(self) -> bool:
        """Whether it cannot be written about now, and has the time to wait until it can: no end is told."""
        return self.background and self.ending is None and isinstance(self.fault, Unavailable)

    @property
    def left(self) -> bool:
        """Whether the response goes on without this process, which is here to stay."""
        lost = isinstance(self.fault, LeaseLost)
        return self.stored and not self.owes and (lost or (self.fault is not None and self.handed_over))

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped from outside, and by us."""
        return self.ending is not None or self.fault is not None or self.handed_over or self._steered

    async def until_ready(self) -> None:
        """Wait until the run has begun. Raises why it could not."""
        await asyncio.shield(self._ready)

    def _interrupt(self) -> None:
        # Once is enough: what unwinds must not be interrupted.
        if self._task is not None and not self._stopping:
            self._stopping = True
            self._task.cancel()


class Unwritten:
    """The `Tail` of a run that nobody remembers: what is put is told at once."""

    full = False

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    def put(self, step: InEvent | None, events: Sequence[Event]) -> None:
        """Tell."""
        del step
        if events:
            self._witness.durable(events)

    def ride(self, rider: Rider) -> bool:
        """Nothing is written."""
        del rider
        return False

    async def flush(self) -> None:
        """There is nothing to wait for."""

    async def conclude(self, events: Sequence[Event], response: StoredResponse | None) -> None:
        """Tell the last events."""
        del response
        self.put(None, events)


class Runs:
    """All runs of this process."""

    def __init__(self) -> None:
        self._live: dict[tuple[str, str], Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._live)

    @property
    def all(self) -> tuple[Run, ...]:
        """Those there are now."""
        return tuple(self._live.values())

    def get(self, tenant: str, response_id: str) -> Run | None:
        """The tenant's run of that response, if it is in the making here."""
        return self._live.get((tenant, response_id))

    def forget(self, run: Run) -> None:
        """There is nothing more to say about the run here."""
        if self._live.get((run.tenant, run.id)) is run:
            del self._live[run.tenant, run.id]

    async def start(self, run: Run, work: Coroutine[None, None, None]) -> None:
        """Begin `run`, and wait until it has begun. Raises what kept it from beginning."""
        key = (run.tenant, run.id)
        self._live[key] = run
        task = run.begin(work)
        self._tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            if not run.owes:
                self.forget(run)
            run.log.close()
            if done.cancelled() or (fault := done.exception()) is None:
                return
            run.refused(fault)
            if not isinstance(fault, LeaseLost):
                _log.error("run %s ended by a fault of ours", run.id, exc_info=fault)

        task.add_done_callback(ended)
        await run.until_ready()

    async def drain(self, seconds: float) -> None:
        """Take no new runs, give those there are `seconds` to finish, then hand over or end the rest."""
        self.draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for run in self.all:
            if run.background:
                run.hand_over()
            else:
                run.end(Abort(SHUTDOWN))
        if self._tasks:
            await asyncio.wait(self._tasks)
