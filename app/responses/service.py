"""The use-cases of the Responses API: create, get, follow, cancel, delete, input items. Tenant first, always.

A response that is being made here is answered for from memory. One that is made elsewhere, or waits, is answered for
from its log. One that is finished is history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from msgspec import structs

from app.dialects.openai_responses import decode
from app.dialects.openai_responses.keeping import fold
from app.dialects.openai_responses.wire import CreateResponse
from app.responses.circumstances import USUAL, Circumstances
from app.responses.context import Context, built_on
from app.responses.following import Elsewhere, Followed, Here, body_of, no_event
from app.responses.making import Maker
from app.responses.plan import Plan, hinted, new_seed, remember
from app.responses.planning import Planner, Whose
from app.responses.ports import Entry, ItemPage, NewRun, Ports, RunState, StoredItem, StoredResponse
from app.responses.prompts import filled
from app.responses.runs import Run, Runs
from app.responses.settings import ResponsesSettings
from app.turn.errors import Conflict, InvalidRequest, NotFound, Unavailable
from app.turn.events import Cancel, Finish
from app.turn.ids import SeededIds

# A cancelled response that does not end by then is reported as it is: its end will come.
CANCEL_SECS = 10.0
_NEVER = 2**31 - 1


class Responses:
    """The Responses API over its ports."""

    def __init__(
        self,
        ports: Ports,
        runs: Runs,
        settings: ResponsesSettings,
        finished: Callable[[Finish], None] = lambda _finish: None,
    ) -> None:
        self._ports = ports
        self._runs = runs
        self._settings = settings
        self.maker = Maker(ports, settings, finished, runs.forget)
        self.planner = Planner(ports, settings)

    # ── create ────────────────────────────────────────────────────────────────

    async def create(
        self, tenant: str, request: CreateResponse, principal: str = "", circumstances: Circumstances = USUAL
    ) -> Followed:
        """Start making a response for `principal`. It runs on whether or not anyone follows it.

        Raises `InvalidRequest`, `NotFound` (model), `NoWorker`, `Unavailable`: then nothing was started or stored.
        """
        if self._runs.draining:
            raise Unavailable("The server is shutting down. Please retry.", code="server_shutting_down", retry_after=5)
        self._ports.fleet.ensure_model(tenant, request.model, circumstances.hints.target)
        request = await filled(self._ports.prompts, tenant, request)
        kept, profile = circumstances.context, circumstances.profile or self._settings.stream_profile
        context = await self._context(tenant, request) if kept is None else Context(kept)
        response_id, seed = circumstances.response_id or self._ports.ids.new("resp"), new_seed()
        ids = SeededIds(seed)
        planned = await self.planner.plan(Whose(tenant, principal), request, context.items, ids)
        planned = structs.replace(planned, version=context.version, until=context.until)
        planned = hinted(planned, circumstances.hints)
        stored = request.store is not False
        encoder = self.planner.encoder(tenant, response_id, request, ids, profile=profile)
        background = request.background is True
        new = NewRun(
            tenant=tenant,
            response_id=response_id,
            background=background,
            created_at=encoder.created_at,
            conversation_id=request.conversation_id,
            conversation_version=context.version,
            request=remember(seed, profile, planned).write() if background or stored else None,
        )
        if background:
            queued = Entry((), tuple(encoder.create()))
            return await self._enqueue(new, planned, queued, encoder.body())
        run = Run(tenant, encoder, stored=stored, given=(*context.items, *planned.own))
        make = self.maker.make if circumstances.generate else self.maker.make_empty
        noted = stored or request.conversation_id is not None
        await self._runs.start(run, make(run, planned, new if noted else None))
        return Here(run, self._ports.events, own=True)

    async def _enqueue(self, new: NewRun, planned: Plan, queued: Entry, body: bytes) -> Followed:
        # Nothing is called yet, but what is wrong with the servers should be known now.
        opened = self._ports.tools.open(new.tenant, planned.servers, planned.after(None), planned.principal)
        async with opened:
            pass
        await self._ports.runs.begin(new, queued, waiting=True)
        return Elsewhere(self._ports.events, new.tenant, new.response_id, body)

    async def _context(self, tenant: str, request: CreateResponse) -> Context:
        previous = request.previous_response_id
        if previous is not None and await self._still_made(tenant, previous):
            raise _in_progress(previous)
        try:
            return await built_on(self._ports, tenant, request)
        except NotFound as error:
            if previous is None:
                raise
            if await self._ports.runs.look(tenant, previous) is not None:
                raise _in_progress(previous) from error
            message = f"Previous response with id '{previous}' not found."
            code = "previous_response_not_found"
            raise InvalidRequest(message, param="previous_response_id", code=code) from error

    # ── get ───────────────────────────────────────────────────────────────────

    async def get(self, tenant: str, response_id: str) -> bytes:
        """The response as JSON, finished or in the making. Raises `NotFound`."""
        run = self._live(tenant, response_id)
        if run is not None:
            return run.body()
        try:
            return body_of(await self._stored(tenant, response_id))
        except NotFound:
            if await self._ports.runs.look(tenant, response_id) is None:
                # It may have been concluded between the two looks.
                return body_of(await self._stored(tenant, response_id))
        return fold(await self._ports.events.told(tenant, response_id))

    async def follow(self, tenant: str, response_id: str, after: int = -1) -> Followed:
        """The response, finished or in the making, to be followed from event `after` on.

        Raises `NotFound`, and `InvalidRequest(param="starting_after")` when it is known that there is no such event.
        """
        run = self._live(tenant, response_id)
        if run is not None:
            if after > run.log.last:
                # Somebody else may have gone on with it, and this process not have noticed.
                _ensure_event(after, await self._ports.events.last(tenant, response_id))
            return Here(run, self._ports.events, own=False)
        body = await self.get(tenant, response_id)
        if after >= 0 and after > await self._ports.events.last(tenant, response_id):
            await self._ensure_event_to_come(tenant, response_id, after)
        return Elsewhere(self._ports.events, tenant, response_id, body)

    async def _ensure_event_to_come(self, tenant: str, response_id: str, number: int) -> None:
        """One that is made elsewhere may have told more than could be written yet; of one that is over all is known."""
        if await self._ports.runs.look(tenant, response_id) is None:
            _ensure_event(number, await self._ports.events.last(tenant, response_id))

    async def input_items(
        self, tenant: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage:
        """A page of what was given to the response. Raises `NotFound`, `InvalidRequest(param="after")`."""
        run = self._live(tenant, response_id)
        if run is not None:
            return page(run.given, limit=limit, order=order, after=after)
        _well_formed(response_id)
        try:
            return await self._ports.history.input_items(tenant, response_id, limit=limit, order=order, after=after)
        except NotFound:
            if await self._ports.runs.look(tenant, response_id) is None:
                raise
        raise Conflict("The response is still in progress.", code="response_in_progress")

    # ── cancel, delete ────────────────────────────────────────────────────────

    async def cancel(self, tenant: str, response_id: str) -> bytes:
        """End a background response, wherever it is made; the response as JSON. One that has ended stays as it is.

        Raises `NotFound`, and `InvalidRequest` for a response that is not made in the background.
        """
        run = self._live(tenant, response_id)
        state = RunState(run.background, False, False) if run is not None else None
        if run is None:
            _well_formed(response_id)
            state = await self._ports.runs.look(tenant, response_id)
        if state is None:
            body = await self.get(tenant, response_id)
            if b'"background":true' not in body:
                raise _not_background()
            return body
        if not state.background:
            raise _not_background()
        if run is not None:
            run.end(Cancel())
            await _not_long(run.over())
        else:
            await self._ports.runs.cancel(tenant, response_id)
            await _not_long(self._until_over(tenant, response_id))
        return await self.get(tenant, response_id)

    async def _until_over(self, tenant: str, response_id: str) -> None:
        async for _ in self._ports.events.follow(tenant, response_id, _NEVER):
            pass

    async def delete(self, tenant: str, response_id: str) -> None:
        """Forget the response. Raises `NotFound`, or `Conflict` while it is being made."""
        _well_formed(response_id)
        being_made = await self._still_made(tenant, response_id)
        if being_made or await self._ports.runs.look(tenant, response_id) is not None:
            raise Conflict("The response is still in progress.", code="response_in_progress")
        await self._ports.history.delete(tenant, response_id)

    # ── where it is ───────────────────────────────────────────────────────────

    def _live(self, tenant: str, response_id: str) -> Run | None:
        run = self._runs.get(tenant, response_id)
        return run if run is not None and run.stored and not run.over_and_told else None

    async def _still_made(self, tenant: str, response_id: str) -> bool:
        """Whether the response is made here. One that has ended is waited for: where it is stored it may be known to be
        complete already."""
        run = self._live(tenant, response_id)
        if run is not None and run.ends:
            await run.over()
        return run is not None and not run.ends

    async def _stored(self, tenant: str, response_id: str) -> StoredResponse:
        _well_formed(response_id)
        return await self._ports.history.get(tenant, response_id)


async def _not_long(work: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(CANCEL_SECS):
            await work
    except TimeoutError:
        pass


def _ensure_event(number: int, last: int) -> None:
    if number > last:
        raise no_event(number)


def _in_progress(previous: str) -> InvalidRequest:
    message = f"Previous response with id '{previous}' is still in progress."
    return InvalidRequest(message, param="previous_response_id", code="response_in_progress")


def _not_background() -> InvalidRequest:
    return InvalidRequest("Only responses made in the background can be cancelled.", code="response_not_background")


def page(items: Sequence[StoredItem], *, limit: int, order: Literal["asc", "desc"], after: str | None) -> ItemPage:
    """A page of `items`, which are given oldest first. Raises `InvalidRequest(param="after")`."""
    ordered = list(items) if order == "asc" else list(reversed(items))
    first = 0
    if after is not None:
        first = next((index + 1 for index, item in enumerate(ordered) if item.id == after), -1)
        if first < 0:
            raise InvalidRequest(f"No item with id '{after}'.", param="after")
    return ItemPage(tuple(ordered[first : first + limit]), first + limit < len(ordered))


def _well_formed(response_id: str) -> None:
    # An id that cannot exist is not worth a query, and looks like any other unknown one.
    if not decode.is_response_id(response_id):
        raise NotFound(f"Response with id '{response_id}' not found.")
