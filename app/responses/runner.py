"""Performs what the machine asks for, and feeds it what happened.

The runner decides nothing. The machine's effects come in two shapes, and it never asks for both at once: one model
turn, which is a stream of events, or a handful of tool calls or listings, which run side by side and end in any order.
Both become one stream of events here, so the loop below is all there is.

Cancellation is the event loop's: whoever cancels the task ends the model turn (the worker sees the connection close)
and every tool call (the server is told), and then decides what the machine is fed as the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from msgspec import Struct

from app.responses.machine import ResponseMachine
from app.responses.ports import Fleet, RouteKey, ToolSession
from app.turn.errors import Failure, GatewayError
from app.turn.events import (
    CallModel,
    CallTool,
    Emit,
    Finish,
    InEvent,
    ListTools,
    LoopEvent,
    OutEvent,
    Start,
    ToolReturned,
    TurnDone,
    TurnEvent,
    TurnFailed,
)


class World(Struct, frozen=True):
    """Where the effects of one run happen."""

    fleet: Fleet
    tools: ToolSession
    route: RouteKey


async def perform(machine: ResponseMachine, start: Start, world: World, emit: Callable[[LoopEvent], None]) -> Finish:
    """Run `machine` from `start` to its end. `emit` is told everything the client may see, in order."""
    effects, finish = _settle(machine.feed(start), emit)
    while finish is None:
        async with aclosing(_happenings(effects, world)) as happenings:
            effects = list[OutEvent]()
            async for event in happenings:
                asked, finish = _settle(machine.feed(event), emit)
                effects += asked
                if finish is not None:
                    break
    return finish


def _settle(commands: Sequence[OutEvent], emit: Callable[[LoopEvent], None]) -> tuple[list[OutEvent], Finish | None]:
    """Emit what is to be emitted; return the effects to perform, and the end when it has come."""
    effects: list[OutEvent] = []
    for command in commands:
        if isinstance(command, Emit):
            emit(command.event)
        elif isinstance(command, Finish):
            return [], command
        else:
            effects.append(command)
    return effects, None


async def _happenings(effects: Sequence[OutEvent], world: World) -> AsyncGenerator[InEvent, None]:
    if len(effects) == 1 and isinstance(effects[0], CallModel):
        async with aclosing(_model_turn(effects[0], world)) as turn:
            async for event in turn:
                yield event
        return
    tasks = {asyncio.create_task(_ask_server(effect, world.tools)) for effect in effects}
    try:
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask_server(effect: OutEvent, tools: ToolSession) -> InEvent:
    match effect:
        case ListTools():
            return await tools.list_tools(effect.server_label)
        case CallTool():
            return ToolReturned(await tools.call(effect))
        case _:
            raise TypeError(f"{type(effect).__name__} cannot be performed beside others")


async def _model_turn(effect: CallModel, world: World) -> AsyncGenerator[TurnEvent, None]:
    """The turn's events, up to and including exactly one `TurnDone` or `TurnFailed`."""
    try:
        async with world.fleet.lease(world.route, effect.request) as backend:
            async for event in backend.stream(effect.request):
                yield event
                if isinstance(event, TurnDone | TurnFailed):
                    return
    except GatewayError as error:
        yield TurnFailed(error.failure)
        return
    yield TurnFailed(Failure(502, "upstream_stream_cut", "The model's answer stopped before it was complete."))
