"""Makes one response: from its plan, or from where its log ends.

A run that begins again is fed what an earlier one was fed. Machine and encoder are the same functions of the same
steps, so they come to where the other was, and say what it said, byte for byte; what it did not get to say is said now.
Where they do not (another version wrote the log) nothing more can be made of the run, and it ends as failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial

from msgspec import Raw, Struct, structs

from app.dialects.openai_responses.encode import Event
from app.responses.asking import Asker
from app.responses.expiry import earliest, expires_at
from app.responses.holding import Holding
from app.responses.machine import ResponseMachine
from app.responses.owing import Owing
from app.responses.plan import Plan
from app.responses.ports import Entry, LeaseLost, NewRun, OpenRun, Ports, StoredResponse, ToolSession
from app.responses.runner import World, perform, steer
from app.responses.runs import Run
from app.responses.settings import ResponsesSettings
from app.turn.errors import Failure, GatewayError, LocalProtocolError, Unavailable
from app.turn.events import Abort, Cancel, Emit, Finish, InEvent, LoopEvent, Resumed, Start
from app.turn.usage import Usage

_log = logging.getLogger(__name__)

INTERNAL = Failure(500, "server_error", "The server failed while making this response. It has been logged.")
TIMEOUT = Failure(504, "run_timeout", "The response took longer than the server allows.")
RESTARTED = Failure(503, "server_restarted", "The server that made this response stopped before it was complete.")
DOOMED = Failure(500, "run_crashed", "The servers that tried to make this response all stopped. It is not tried again.")


class _Gone(Exception):
    """The run is not ours any more: nothing is left to do here."""


class Scribe:
    """Notes what happens to a run: encoded for its client, and for whoever may have to begin again."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def full(self) -> bool:
        """See `runner.Scribe`."""
        return self._run.tail.full

    def note(self, step: InEvent, told: Sequence[LoopEvent]) -> None:
        """See `runner.Scribe`."""
        events: list[Event] = []
        for each in told:
            events += self._run.encoder.feed(each)
        # The start follows from the request.
        self._run.put(None if isinstance(step, Start) else step, events)

    async def settled(self) -> None:
        """See `runner.Scribe`."""
        await self._run.tail.flush()


class Past(Struct, frozen=True):
    """What an open run's log says, and what to feed it now: None when it had ended."""

    machine: ResponseMachine
    unsaid: tuple[Event, ...]
    next: InEvent | None


class Maker:
    """Makes responses. `finished` is told of each end, `paid` when nothing is owed of a run any more (see `owing`)."""

    def __init__(
        self,
        ports: Ports,
        settings: ResponsesSettings,
        finished: Callable[[Finish], None],
        paid: Callable[[Run], None],
    ) -> None:
        self._ports = ports
        self._settings = settings
        self._finished = finished
        self.owing = Owing(ports, paid)

    async def make(self, run: Run, plan: Plan, new: NewRun | None) -> None:
        """Make a response while its client waits; `new` is what to note of one that is stored, or holds something."""
        async with AsyncExitStack() as stack:
            try:
                session = await stack.enter_async_context(self._tools(run, plan))
                await self._begin(run, new)
            except GatewayError as error:
                run.refused(error)
                return
            run.ready()
            finish = await self._perform(run, plan, session, ResponseMachine(), _recalled(plan.start, session))
        await self._conclude(run, plan, finish)

    async def make_empty(self, run: Run, plan: Plan, new: NewRun | None) -> None:
        """Make a response that says nothing: something to go on from."""
        try:
            await self._begin(run, new)
        except GatewayError as error:
            run.refused(error)
            return
        run.ready()
        run.concluding()
        await self._conclude(run, plan, Finish("completed", Usage()))

    async def resume(self, run: Run, plan: Plan, found: OpenRun, ending: Abort | None = None) -> None:
        """Go on with a run this process has claimed; or end it like this, where its log ends."""
        run.lease = found.lease
        run.tail = self._ports.runs.tail(found.lease, found.entries, run)
        told = tuple(event for entry in found.entries for event in entry.events)
        run.log.append(told)
        async with AsyncExitStack() as stack:
            session, start, refused = None, plan.start, None
            try:
                session = await stack.enter_async_context(self._tools(run, plan))
                start = _recalled(plan.start, session)
            except GatewayError as error:
                if found.background and ending is None and isinstance(error, Unavailable):
                    # It can wait: whoever claimed it lets it go.
                    raise
                refused = error
            try:
                past = self._past(run, start, found, told, ending)
            except (LocalProtocolError, _Gone):
                _log.exception("run %s cannot go on from its log", run.id)
                run.ready()
                await self.give_up(run, plan, told, RESTARTED)
                return
            run.put(None, past.unsaid)
            run.ready()
            finish = past.machine.finish
            if isinstance(past.next, Abort):
                finish = _force(run, past.machine, past.next)
            elif past.next is not None and session is not None:
                finish = await self._perform(run, plan, session, past.machine, past.next)
            elif past.next is not None and refused is not None:
                finish = _force(run, past.machine, Abort(refused.failure))
        run.concluding()
        assert finish is not None
        await self._conclude(run, plan, finish)

    async def give_up(self, run: Run, plan: Plan, told: Sequence[Event], failure: Failure) -> None:
        """End a run of which only what was told is known."""
        run.concluding()
        run.encoder.adopt(told)
        await self._conclude(run, plan, Finish("failed", ResponseMachine().usage, failure=failure))

    # ── beginning ─────────────────────────────────────────────────────────────

    def _tools(self, run: Run, plan: Plan) -> AbstractAsyncContextManager[ToolSession]:
        return self._ports.tools.open(run.tenant, plan.servers, plan.after(run.id), plan.principal, run)

    async def _begin(self, run: Run, new: NewRun | None) -> None:
        events = run.encoder.start()
        if new is not None and new.request is None:
            run.lease = await self._ports.runs.begin(new, None, waiting=False)
            run.tail = Holding(self._ports.runs, run.lease, run.tail)
        elif new is not None:
            entry = Entry((), tuple(events))
            run.lease = await self._ports.runs.begin(new, entry, waiting=False)
            run.tail = self._ports.runs.tail(run.lease, (entry,), run)
        run.log.append(events)

    def _past(self, run: Run, start: Start, found: OpenRun, told: tuple[Event, ...], ending: Abort | None) -> Past:
        """Live through the log again. Raises `LocalProtocolError`, `_Gone` when it cannot have happened here."""
        machine, encoder = ResponseMachine(), run.encoder
        said = encoder.create()
        if len(told) <= len(said) or told[len(said)].type == "response.in_progress":
            said += encoder.begin()
        for step in (start, *(step for entry in found.entries for step in entry.steps)):
            for command in machine.feed(step):
                said += encoder.feed(command.event) if isinstance(command, Emit) else ()
        if machine.finish is not None:
            # What was open then was ended before the end was told.
            said += encoder.close(machine.finish)
        if tuple(said[: len(told)]) != told:
            raise _Gone
        return Past(machine, tuple(said[len(told) :]), None if machine.finish is not None else ending or _next(found))

    # ── the middle ────────────────────────────────────────────────────────────

    async def _perform(
        self, run: Run, plan: Plan, session: ToolSession, machine: ResponseMachine, first: InEvent
    ) -> Finish:
        limit = asyncio.timeout(self._settings.run_timeout_secs)
        route = structs.replace(plan.route, run=run.id)
        asker = Asker(
            self._ports,
            self._settings,
            run.tenant,
            run.id,
            plan.principal,
            partial(earliest, plan, run.encoder.created_at),
        )
        name = f"{run.tenant}/{run.id}"
        world = World(self._ports.fleet, session, route, name, asker.approval, asker.questions)
        scribe = Scribe(run)
        run.steered_by(lambda: steer(machine, scribe))
        try:
            async with limit:
                finish = await perform(machine, first, world, scribe)
        except TimeoutError:
            finish = _force(run, machine, Abort(TIMEOUT if limit.expired() else INTERNAL))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not run.interrupted or task is None:
                raise
            task.uncancel()
            finish = _interrupted(run, machine)
        except GatewayError as error:
            finish = _force(run, machine, Abort(error.failure))
        except Exception:  # noqa: BLE001 - the outer edge of a run: a fault of ours must still end the stream legally
            _log.exception("run %s failed", run.id)
            finish = _force(run, machine, Abort(INTERNAL))
        run.concluding()
        return finish

    # ── the end ───────────────────────────────────────────────────────────────

    async def _conclude(self, run: Run, plan: Plan, finish: Finish) -> None:
        """Close what is open, store, and only then say that it is over."""
        if isinstance(run.fault, LeaseLost):
            run.error = run.fault
            return
        if run.waits_for_log or (run.handed_over and run.ending is None):
            await self._hand_over(run)
            return
        encoder = run.encoder
        run.put(None, encoder.close(finish))
        now = int(self._ports.clock.now())
        run.ending_as()
        encoder.settle(finish, now)
        if finish.failure is not None and not encoder.output():
            run.error = finish.failure.error
        finish = await self._store(run, plan, finish, now)
        self._finished(finish)

    async def _store(self, run: Run, plan: Plan, finish: Finish, now: int) -> Finish:
        """Store the response and say how it ended; or say that it could not be stored."""
        response = self._to_store(run, plan, finish, now) if run.stored and run.lease is not None else None
        terminal = run.encoder.terminal()
        try:
            await run.tail.conclude([] if terminal is None else [terminal], response)
            run.concluded()
        except LeaseLost as error:
            run.error = run.fault = error
        except Unavailable as error:
            run.error = run.fault = error
            if run.waits_for_log:
                await self._hand_over(run)
            else:
                finish, end = _failed(run, finish, error, now, unsaid=terminal)
                stored = None if response is None else self._to_store(run, plan, finish, now)
                self._tell_unwritten(run, end, stored)
        except GatewayError as error:
            run.error = error
            finish, end = _failed(run, finish, error, now, unsaid=terminal)
            await self._tell_unstored(run, end)
        return finish

    async def _tell_unstored(self, run: Run, end: Sequence[Event]) -> None:
        """Say that the response cannot be stored, in its log, which is all there will be of it."""
        try:
            await run.tail.conclude(end, None)
            run.concluded()
        except LeaseLost as error:
            run.fault = error
        except GatewayError:
            self._tell_unwritten(run, end, None)

    def _tell_unwritten(self, run: Run, end: Sequence[Event], response: StoredResponse | None) -> None:
        """Say it to who listens, who cannot wait, and owe it to the log."""
        run.log.append([*run.pending, *end])
        self.owing.owe(run, response)

    async def _hand_over(self, run: Run) -> None:
        """Leave the run to whoever claims it. What of it is not in its log was told to nobody."""
        assert run.lease is not None
        run.handed_over = True
        try:
            if run.fault is None:
                await run.tail.flush()
            await self._ports.runs.release(run.lease)
        except GatewayError as error:
            # The foreman finds it among what is ours and nobody makes.
            _log.warning("run %s could not be handed over: %s", run.id, error.message)

    def _to_store(self, run: Run, plan: Plan, finish: Finish, now: int) -> StoredResponse:
        return StoredResponse(
            id=run.id,
            previous_id=plan.request.previous_response_id,
            conversation_id=plan.request.conversation_id,
            conversation_version=plan.version,
            joins=plan.request.store is not False and finish.status in {"completed", "incomplete"},
            created_at=run.encoder.created_at,
            status=finish.status,
            model=plan.request.model,
            snapshot=Raw(run.encoder.snapshot()),
            input=plan.own,
            output=run.encoder.output(),
            expires_at=expires_at(plan, run.tenant, self._settings, run.encoder.created_at, now),
            end_user=plan.request.safety_identifier,
        )


def _recalled(start: Start, session: ToolSession) -> Start:
    """The start with what the context says of tools put under today's rules."""
    return structs.replace(start, known=tuple(session.recall(each) for each in start.known))


def _next(found: OpenRun) -> InEvent:
    if found.cancelled:
        return Cancel()
    return Resumed() if found.background else Abort(RESTARTED)


def _failed(
    run: Run, finish: Finish, why: GatewayError, now: int, *, unsaid: Event | None
) -> tuple[Finish, Sequence[Event]]:
    """The run's end instead of `finish`, whose last event is `unsaid`, and its own last event."""
    failed = Finish("failed", finish.usage, failure=why.failure)
    run.encoder.unsay(0 if unsaid is None else 1)
    run.encoder.settle(failed, now)
    terminal = run.encoder.terminal()
    return failed, () if terminal is None else (terminal,)


def _force(run: Run, machine: ResponseMachine, event: InEvent) -> Finish:
    if machine.finish is None:
        machine.feed(event)
        run.put(event, [])
    assert machine.finish is not None
    return machine.finish


def _interrupted(run: Run, machine: ResponseMachine) -> Finish:
    if run.ending is not None:
        return _force(run, machine, run.ending)
    # What is forced here is never told: the run goes on elsewhere, or cannot be written any more.
    failure = RESTARTED if run.fault is None else run.fault.failure
    return machine.finish or Finish("failed", machine.usage, failure=failure)
