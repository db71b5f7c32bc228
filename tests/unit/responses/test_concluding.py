"""Between a response's end and its being stored: nobody hears of the end early, and who hears of it can go on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from app.dialects.openai_responses.decode import decode_create
from app.history.memory_runs import MemoryRunStore, MemoryTail
from app.responses.ports import Entry, Event, Lease, StoredResponse, Tail, Witness
from app.responses.service import Followed
from app.turn.errors import GatewayError
from app.turn.events import InEvent
from tests.support.scripted import Scripted, says


class SlowTail:
    """A tail whose conclusion takes until it is let go, before or after it is written."""

    def __init__(self, tail: MemoryTail, before: asyncio.Event, after: asyncio.Event, reached: asyncio.Event) -> None:
        self._tail, self._before, self._after, self._reached = tail, before, after, reached
        self.full = False

    def put(self, step: InEvent | None, events: Sequence[Event]) -> None:
        self._tail.put(step, events)

    async def flush(self) -> None:
        await self._tail.flush()

    async def conclude(self, events: Sequence[Event], response: StoredResponse | None) -> None:
        self._reached.set()
        await self._before.wait()
        await self._tail.conclude(events, response)
        await self._after.wait()


class SlowRuns(MemoryRunStore):
    """Runs that are concluded slowly."""

    before: asyncio.Event
    after: asyncio.Event
    reached: asyncio.Event

    def tail(self, lease: Lease, entries: Sequence[Entry], witness: Witness) -> Tail:  # type: ignore[override]
        return SlowTail(super().tail(lease, entries, witness), self.before, self.after, self.reached)


class World(Scripted):
    """A service whose responses are stored slowly."""

    def __init__(self) -> None:
        super().__init__()
        self.runs.__class__ = SlowRuns
        self.slow = self.runs
        assert isinstance(self.slow, SlowRuns)
        self.slow.before, self.slow.after, self.slow.reached = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def begin(self, **fields: Any) -> Followed:
        self.model.turns.append(says("hi"))
        body = msgspec.json.encode({"model": "m", "input": "x", **fields})
        return await self.service.create("t", decode_create(body))


async def ended(world: World) -> tuple[Followed, str]:
    """A response that has ended and is not stored yet."""
    run = await world.begin()
    await asyncio.wait_for(world.slow.reached.wait(), 30)
    (live,) = world.service._runs.all
    return run, live.id


@pytest.mark.parametrize("written", [False, True])
async def test_the_end_is_told_when_it_is_stored_and_then_can_be_gone_on_from(written: bool) -> None:
    world = World()
    _, name = await ended(world)
    if written:
        world.slow.before.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (await world.history.get("t", name)).status == "completed"
    assert msgspec.json.decode(await world.service.get("t", name))["status"] == "in_progress"
    following = asyncio.create_task(world.begin(previous_response_id=name))

    await asyncio.sleep(0)
    assert not following.done()
    world.slow.before.set()
    world.slow.after.set()
    assert msgspec.json.decode(await (await following).result())["status"] == "completed"
    assert msgspec.json.decode(await world.service.get("t", name))["status"] == "completed"


async def test_who_hears_the_end_can_go_on_at_once() -> None:
    world = World()
    world.slow.before.set()
    world.slow.after.set()
    run = await world.begin()
    async for batch in run.follow():
        if batch[-1].type == "response.completed":
            name = msgspec.json.decode(batch[-1].data)["response"]["id"]
            await (await world.begin(previous_response_id=name)).result()


async def test_one_that_is_being_made_cannot_be_gone_on_from() -> None:
    world = World()
    run, name = await ended(world)
    world.slow.before.set()
    world.slow.after.set()
    await run.result()
    halted = asyncio.Event()

    async def halt(_request: object, _hear: object = None) -> Any:
        await halted.wait()
        yield says("late")[-1]

    world.model.stream = halt  # type: ignore[assignment]
    await world.begin(previous_response_id=name)
    (live,) = world.service._runs.all
    for work in (world.begin(previous_response_id=live.id), world.service.delete("t", live.id)):
        with pytest.raises(GatewayError) as refusal:
            await work
        assert refusal.value.code == "response_in_progress"
    halted.set()
    await live.over()
