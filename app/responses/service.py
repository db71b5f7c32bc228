"""The use-cases of the Responses API: create, get, delete, input items. Tenant first, always."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Literal

import msgspec

from app.dialects.openai_responses import decode
from app.dialects.openai_responses.encode import ResponseEncoder, body_from
from app.dialects.openai_responses.wire import CreateResponse
from app.responses.machine import ResponseMachine
from app.responses.ports import (
    ItemPage,
    McpServer,
    Ports,
    RouteKey,
    StoredItem,
    StoredResponse,
    ToolSession,
)
from app.responses.runner import World, perform
from app.responses.runs import Run, Runs
from app.responses.settings import ResponsesSettings
from app.turn.errors import Conflict, Failure, GatewayError, InvalidRequest, NotFound, Unavailable
from app.turn.events import Abort, Finish, InEvent, LoopEvent, Start
from app.turn.items import Item, ToolListing

_log = logging.getLogger(__name__)

INTERNAL = Failure(500, "server_error", "The server failed while making this response. It has been logged.")
TIMEOUT = Failure(504, "run_timeout", "The response took longer than the server allows.")


class Plan(msgspec.Struct, frozen=True):
    """Everything a run needs, decided before it begins."""

    request: CreateResponse
    own: tuple[StoredItem, ...]
    servers: tuple[McpServer, ...]
    start: Start
    route: RouteKey


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
        self._finished = finished

    async def create(self, tenant: str, request: CreateResponse, principal: str = "") -> Run:
        """Start making a response for `principal`. It runs on whether or not anyone follows it.

        Raises `InvalidRequest`, `NotFound` (model), `NoWorker`, `Unavailable`: then nothing was started or stored.
        """
        if self._runs.draining:
            raise Unavailable("The server is shutting down. Please retry.", code="server_shutting_down", retry_after=5)
        self._ports.fleet.ensure_model(tenant, request.model)
        context = await self._context(tenant, request)
        plan = self._plan(tenant, request, context)
        encoder = ResponseEncoder(
            response_id=self._ports.ids.new("resp"),
            created_at=int(self._ports.clock.now()),
            request=request,
            ids=self._ports.ids,
            profile=self._settings.stream_profile,
        )
        stored = request.store is not False
        run = Run(tenant, encoder, stored=stored, given=(*context, *plan.own))
        await self._runs.start(run, self._make(run, plan, principal))
        return run

    async def get(self, tenant: str, response_id: str) -> bytes:
        """The response as JSON, finished or in the making. Raises `NotFound`."""
        run = self._live(tenant, response_id)
        if run is not None:
            return run.encoder.body()
        found = await self._stored(tenant, response_id)
        return body_from(found.snapshot, found.output)

    async def delete(self, tenant: str, response_id: str) -> None:
        """Forget the response. Raises `NotFound`, or `Conflict` while it is being made."""
        if self._live(tenant, response_id) is not None:
            raise Conflict("The response is still in progress.", code="response_in_progress")
        _well_formed(response_id)
        await self._ports.history.delete(tenant, response_id)

    async def input_items(
        self, tenant: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage:
        """A page of what was given to the response. Raises `NotFound`, `InvalidRequest(param="after")`."""
        run = self._live(tenant, response_id)
        if run is not None:
            return page(run.given, limit=limit, order=order, after=after)
        _well_formed(response_id)
        return await self._ports.history.input_items(tenant, response_id, limit=limit, order=order, after=after)

    # ── before the run ────────────────────────────────────────────────────────

    def _live(self, tenant: str, response_id: str) -> Run | None:
        run = self._runs.get(tenant, response_id)
        return run if run is not None and run.stored else None

    async def _stored(self, tenant: str, response_id: str) -> StoredResponse:
        _well_formed(response_id)
        return await self._ports.history.get(tenant, response_id)

    async def _context(self, tenant: str, request: CreateResponse) -> tuple[StoredItem, ...]:
        previous = request.previous_response_id
        if previous is None:
            return ()
        if self._live(tenant, previous) is not None:
            message = f"Previous response with id '{previous}' is still in progress."
            raise InvalidRequest(message, param="previous_response_id", code="response_in_progress")
        try:
            return tuple(await self._ports.history.context(tenant, previous))
        except NotFound as error:
            message = f"Previous response with id '{previous}' not found."
            code = "previous_response_not_found"
            raise InvalidRequest(message, param="previous_response_id", code=code) from error

    def _plan(self, tenant: str, request: CreateResponse, context: tuple[StoredItem, ...]) -> Plan:
        own = decode.input_items(request, self._ports.ids)
        before, new = decode.to_items(context), decode.to_items(own)
        decode.check_pairing(before, new)
        servers = decode.servers(request)
        limit = self._settings.max_tool_calls
        start = Start(
            request=decode.turn_request(request, (*before, *new), decode.function_tools(request)),
            servers=tuple(server.label for server in servers),
            known=tuple(listing for server in servers if (listing := known((*before, *new), server)) is not None),
            max_tool_calls=min(request.max_tool_calls or limit, limit),
        )
        route = RouteKey(
            tenant=tenant,
            model=request.model,
            conversation=request.previous_response_id,
            affinity=request.prompt_cache_key,
        )
        return Plan(request, own, servers, start, route)

    # ── the run ───────────────────────────────────────────────────────────────

    async def _make(self, run: Run, plan: Plan, principal: str) -> None:
        async with AsyncExitStack() as stack:
            try:
                opened = self._ports.tools.open(run.tenant, plan.servers, plan.route.conversation, principal)
                session = await stack.enter_async_context(opened)
            except GatewayError as error:
                run.refused(error)
                return
            run.log.append(run.encoder.start())
            run.ready()
            finish = await self._perform(run, plan, session)
        await self._conclude(run, plan, finish)

    async def _perform(self, run: Run, plan: Plan, session: ToolSession) -> Finish:
        machine = ResponseMachine()
        start = msgspec.structs.replace(plan.start, known=tuple(session.recall(each) for each in plan.start.known))

        def emit(event: LoopEvent) -> None:
            run.log.append(run.encoder.feed(event))

        limit = asyncio.timeout(self._settings.run_timeout_secs)
        try:
            async with limit:
                finish = await perform(machine, start, World(self._ports.fleet, session, plan.route), emit)
        except TimeoutError:
            finish = _force(machine, Abort(TIMEOUT if limit.expired() else INTERNAL))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if run.ending is None or task is None:
                raise
            task.uncancel()
            finish = _force(machine, run.ending)
        except Exception:  # noqa: BLE001 - the outer edge of a run: a fault of ours must still end the stream legally
            _log.exception("run %s failed", run.id)
            finish = _force(machine, Abort(INTERNAL))
        run.concluding()
        return finish

    async def _conclude(self, run: Run, plan: Plan, finish: Finish) -> None:
        """Close what is open, store, and only then say that it is over."""
        encoder = run.encoder
        run.log.append(encoder.close(finish))
        now = int(self._ports.clock.now())
        encoder.settle(finish, now)
        if finish.failure is not None and not encoder.output():
            run.error = _as_error(finish.failure)
        if run.stored:
            try:
                await self._ports.history.save(run.tenant, self._to_store(run, plan, finish))
            except GatewayError as error:
                run.error = error
                finish = Finish("failed", finish.usage, failure=error.failure)
                encoder.settle(finish, now)
        terminal = encoder.terminal()
        run.log.append([terminal] if terminal is not None else [])
        self._finished(finish)

    def _to_store(self, run: Run, plan: Plan, finish: Finish) -> StoredResponse:
        return StoredResponse(
            id=run.id,
            previous_id=plan.request.previous_response_id,
            created_at=run.encoder.created_at,
            status=finish.status,
            model=plan.request.model,
            snapshot=msgspec.Raw(run.encoder.snapshot()),
            input=plan.own,
            output=run.encoder.output(),
        )


def known(context: Sequence[Item], server: McpServer) -> ToolListing | None:
    """The listing of `server` that the context already holds, if it answers what this request asks for.

    A listing shows what was allowed when it was made; asked for a tool it does not show, the server is listed again.
    """
    for item in reversed(context):
        if isinstance(item, ToolListing) and item.server_label == server.label and item.error is None:
            if server.allowed is None:
                return item
            tools = tuple(tool for tool in item.tools if (tool.tool or tool.name) in server.allowed)
            return msgspec.structs.replace(item, tools=tools) if len(tools) == len(set(server.allowed)) else None
    return None


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


def _force(machine: ResponseMachine, event: InEvent) -> Finish:
    if machine.finish is None:
        machine.feed(event)
    assert machine.finish is not None
    return machine.finish


def _as_error(failure: Failure) -> GatewayError:
    return GatewayError(failure.message, code=failure.code, param=failure.param, status=failure.status)
