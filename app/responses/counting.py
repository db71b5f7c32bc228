"""How many tokens a request's input is, before anything is made of it.

The request is taken as far as its first model turn, by the machine that would make the response: instructions, the
whole context, and all tools as the model would be shown them, those of MCP servers included. Nothing is called, stored
or used up. The engine that would run the turn counts it; where none can, the number is an estimate: four bytes of text
to a token, a thousand for an image.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from msgspec import Struct, structs

from app.dialects.openai_responses.wire import CreateResponse
from app.responses.context import built_on
from app.responses.machine import ResponseMachine
from app.responses.plan import Plan, hinted
from app.responses.planning import Planner, Whose
from app.responses.ports import NO_HINTS, Ports, RouteHints, RouteKey, ToolSession
from app.responses.prompts import filled
from app.responses.window import BYTES_PER_TOKEN, tokens
from app.turn.errors import InvalidRequest, NotFound
from app.turn.events import CallModel, Emit, ListTools, OutEvent, Window
from app.turn.ids import CountedIds
from app.turn.request import TurnRequest


class Counted(Struct, frozen=True):
    """A number of tokens, and whether it is only about that many."""

    tokens: int
    estimated: bool


class TokenCounter(Protocol):
    """Who can count like an engine."""

    async def count(self, route: RouteKey, turn: TurnRequest) -> int | None:
        """The tokens of the turn's prompt; None when no worker that serves the model can say."""
        ...


class Counting:
    """Counts the input of requests."""

    def __init__(self, ports: Ports, planner: Planner, counter: TokenCounter) -> None:
        self._ports = ports
        self._planner = planner
        self._counter = counter

    async def count(
        self, tenant: str, principal: str, request: CreateResponse, hints: RouteHints = NO_HINTS
    ) -> Counted:
        """The tokens of the first turn, counted where `hints` want it.

        Raises `InvalidRequest`, `NotFound`, `NoWorker`, `Unavailable`.
        """
        self._ports.fleet.ensure_model(tenant, request.model, hints.target)
        request = await filled(self._ports.prompts, tenant, request)
        try:
            context = await built_on(self._ports, tenant, request)
        except NotFound as error:
            if request.previous_response_id is None:
                raise
            param, code = "previous_response_id", "previous_response_not_found"
            message = f"Previous response with id '{request.previous_response_id}' not found."
            raise InvalidRequest(message, param=param, code=code) from error
        plan = await self._planner.draft(Whose(tenant, principal), request, context.items, CountedIds())
        turn = await self._first_turn(tenant, plan)
        found = await self._counter.count(hinted(plan, hints).route, turn)
        return Counted(estimate(turn), True) if found is None else Counted(found, False)

    async def _first_turn(self, tenant: str, plan: Plan) -> TurnRequest:
        opened = self._ports.tools.open(tenant, plan.servers, plan.after(None), plan.principal)
        async with opened as session:
            known = tuple(session.recall(each) for each in plan.start.known)
            # Neither is a summary made, nor an approved or an answered call.
            start = structs.replace(plan.start, known=known, window=Window(), approved=(), answered=())
            machine = ResponseMachine()
            effects = machine.feed(start)
            while asked := [each for each in effects if isinstance(each, ListTools)]:
                effects = await self._listed(machine, session, asked)
        return next((each.request for each in effects if isinstance(each, CallModel)), plan.start.request)

    async def _listed(self, machine: ResponseMachine, session: ToolSession, asked: list[ListTools]) -> list[OutEvent]:
        listings = await asyncio.gather(*(session.list_tools(each.server_label) for each in asked))
        effects: list[OutEvent] = []
        for listing in listings:
            effects += machine.feed(listing)
        return [each for each in effects if not isinstance(each, Emit)]


def estimate(turn: TurnRequest) -> int:
    """About how many tokens the turn's prompt is."""
    tools = sum(len(tool.name) + len(tool.description or "") + len(bytes(tool.parameters)) for tool in turn.tools)
    instructions = len((turn.instructions or "").encode("utf-8", "surrogatepass"))
    return tokens(turn.items) + (tools + instructions) // BYTES_PER_TOKEN
