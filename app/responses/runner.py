"""Performs what the machine asks for, and feeds it what happened.

The runner decides nothing. The machine's effects come in two shapes, and it never asks for both at once: one model
turn, which is a stream of events, or a handful of tool calls, listings or requests for approval, which run side by
side and end in any order.
Both become one stream of events here, so the loop below is all there is.

Cancellation is the event loop's: whoever cancels the task ends the model turn (the worker sees the connection close)
and every tool call (the server is told), and then decides what the machine is fed as the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

from msgspec import Struct, structs

from app.responses.eliciting import Asking
from app.responses.machine import ResponseMachine
from app.responses.ports import Fleet, RouteKey, ToolSession
from app.turn.errors import Failure, GatewayError
from app.turn.events import (
    ApprovalOpened,
    AskApproval,
    CallModel,
    CallTool,
    Delta,
    Elicited,
    Emit,
    Finish,
    Hear,
    InEvent,
    ListTools,
    LoopEvent,
    OutEvent,
    Steered,
    ToolReturned,
    TurnDone,
    TurnEvent,
    TurnFailed,
)
from app.turn.items import ToolError, ToolResult

_UNKNOWN = (
    "The server that made this call stopped before the tool answered. Whether the call took effect is unknown; it was "
    "not made again."
)


class World(Struct, frozen=True):
    """Where the effects of one run happen. `name` is the run's, and no other's."""

    fleet: Fleet
    tools: ToolSession
    route: RouteKey
    name: str
    ask_approval: Callable[[AskApproval], Awaitable[ApprovalOpened]]
    ask_user: Callable[[CallTool, Asking], Awaitable[Elicited]]


class Scribe(Protocol):
    """Who notes what happens."""

    @property
    def full(self) -> bool:
        """Whether to wait until what was noted is `settled`, before more of it comes."""
        ...

    def note(self, step: InEvent, told: Sequence[LoopEvent]) -> None:
        """The machine was fed `step`, and said what the client may see of it."""
        ...

    async def settled(self) -> None:
        """Return once everything that was noted will be remembered. Raises when it cannot be."""
        ...


async def perform(machine: ResponseMachine, first: InEvent, world: World, scribe: Scribe) -> Finish:
    """Run `machine` on from `first` to its end. No tool is called before it is settled that it will be."""

    def hear(delta: Delta) -> bool:
        # A delta asks nothing of anyone.
        if machine.finish is not None or scribe.full:
            return False
        _settle(machine, delta, scribe)
        return True

    effects, finish = _settle(machine, first, scribe)
    while finish is None:
        if any(isinstance(effect, CallTool) for effect in effects):
            await scribe.settled()
            effects = [_named(effect, world, machine.turns) for effect in effects]
        async with aclosing(_happenings(effects, world, hear)) as happenings:
            effects = list[OutEvent]()
            async for event in happenings:
                asked, finish = _settle(machine, event, scribe)
                effects += asked
                if finish is not None:
                    break
                if scribe.full:
                    await scribe.settled()
    return finish


def steer(machine: ResponseMachine, scribe: Scribe) -> bool:
    """Tell a running `machine` that its user has more to say; whether that ended it. Then nobody waits any more for
    what it had asked for: interrupt `perform`, and `machine.finish` is the end."""
    return machine.finish is None and _settle(machine, Steered(), scribe)[1] is not None


def _settle(machine: ResponseMachine, step: InEvent, scribe: Scribe) -> tuple[list[OutEvent], Finish | None]:
    """Feed the machine and note what it says; the effects to perform, and the end when it has come."""
    told: list[LoopEvent] = []
    effects: list[OutEvent] = []
    finish: Finish | None = None
    for command in machine.feed(step):
        if isinstance(command, Emit):
            told.append(command.event)
        elif isinstance(command, Finish):
            finish = command
        else:
            effects.append(command)
    scribe.note(step, told)
    return ([] if finish is not None else effects), finish


def _named(effect: OutEvent, world: World, turn: int) -> OutEvent:
    # Engines number their calls anew in each turn.
    return (
        structs.replace(effect, key=f"{world.name}/{turn}/{effect.call_id}") if isinstance(effect, CallTool) else effect
    )


async def _happenings(effects: Sequence[OutEvent], world: World, hear: Hear) -> AsyncGenerator[InEvent, None]:
    if len(effects) == 1 and isinstance(effects[0], CallModel):
        async with aclosing(_model_turn(effects[0], world, hear)) as turn:
            async for event in turn:
                yield event
        return
    if len(effects) == 1:
        yield await _perform_one(effects[0], world)
        return
    tasks = {asyncio.create_task(_perform_one(effect, world)) for effect in effects}
    try:
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _perform_one(effect: OutEvent, world: World) -> InEvent:
    tools = world.tools
    match effect:
        case AskApproval():
            return await world.ask_approval(effect)
        case ListTools():
            return await tools.list_tools(effect.server_label)
        case CallTool():
            if effect.again and not await tools.may_repeat(effect):
                error = ToolError("mcp_protocol_error", _UNKNOWN, -32000)
                return ToolReturned(ToolResult(effect.call_id, _UNKNOWN, error))
            came = await tools.call(effect)
            return await world.ask_user(effect, came) if isinstance(came, Asking) else ToolReturned(came)
        case _:
            raise TypeError(f"{type(effect).__name__} cannot be performed beside others")


async def _model_turn(effect: CallModel, world: World, hear: Hear) -> AsyncGenerator[TurnEvent, None]:
    """The turn's events that are not for `hear`, up to and including exactly one `TurnDone` or `TurnFailed`."""
    try:
        async with world.fleet.lease(world.route, effect.request) as backend:
            async for event in backend.stream(effect.request, hear):
                yield event
                if isinstance(event, TurnDone | TurnFailed):
                    return
    except GatewayError as error:
        yield TurnFailed(error.failure)
        return
    yield TurnFailed(Failure(502, "upstream_stream_cut", "The model's answer stopped before it was complete."))
