"""A log that cannot be written: who waits is told that the response failed, and it has; who does not, waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from app.dialects.openai_responses.check import check_events
from app.dialects.openai_responses.decode import decode_create
from app.dialects.openai_responses.events import Event
from app.responses.following import Followed
from app.responses.foreman import Foreman
from app.responses.ports import StoredResponse
from app.responses.settings import ResponsesSettings
from app.turn.errors import InvalidRequest, Unavailable
from tests.support.scripted import Scripted, calls, says

MCP = {"type": "mcp", "server_label": "s", "server_url": "http://mcp.example/mcp", "require_approval": "never"}


class World(Scripted):
    """The service beside a foreman, on a shelf that goes away when the tool is called."""

    def __init__(self) -> None:
        super().__init__()
        self.tools.add("s", "unplug")
        self.tools.results["unplug"] = self._unplug

    def _unplug(self, _arguments: str) -> str:
        self.shelf.away = True
        return "it is dark"

    @property
    def foreman(self) -> Foreman:
        return Foreman(self.ports, self.live, self.service.maker, ResponsesSettings(), renew_secs=1.0, poll_secs=1.0)

    async def begin(self, **request: Any) -> Followed:
        self.model.turns = [calls(("unplug", {})), says("You unplugged it.")]
        body = msgspec.json.encode({"model": "m", "input": "go", "tools": [MCP], **request})
        return await self.service.create("t", decode_create(body))

    async def idle(self) -> None:
        """Return once nothing is made here any more."""
        for run in self.live.all:
            await run.over()
            await asyncio.sleep(0)

    async def goes_on(self) -> None:
        """What was away is back, and what waited for it is made."""
        self.shelf.away = False
        self.shelf.tell()
        self.model.turns = [says("You unplugged it.")]
        await self.foreman.renew_once()
        await self.foreman.claim_once()

    async def runs_last(self, response_id: str) -> int:
        """The last event that is written."""
        self.shelf.away = False
        try:
            return await self.runs.last("t", response_id)
        finally:
            self.shelf.away = True

    async def stored(self, response_id: str) -> StoredResponse:
        return await self.history.get("t", response_id)


async def told(followed: Followed) -> list[Event]:
    return [event async for batch in followed.follow() for event in batch]


def decoded(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(event.data) for event in events]


async def test_who_waits_is_told_that_it_failed_and_so_it_is_stored() -> None:
    world = World()
    run = await world.begin()
    events = await told(run)
    with pytest.raises(Unavailable):
        await run.result()
    assert check_events(decoded(events)) == []
    end = decoded(events)[-1]
    assert (end["type"], end["response"]["error"]["code"]) == ("response.failed", "history_unavailable")
    response_id = end["response"]["id"]
    # Nothing can be written; it is answered for from memory.
    with pytest.raises(Unavailable):
        await world.foreman.claim_once()
    assert msgspec.json.decode(await world.service.get("t", response_id))["status"] == "failed"
    world.shelf.away = False
    await world.foreman.renew_once()
    assert world.shelf.rows == {}
    assert len(world.live) == 0
    assert list(await world.runs.told("t", response_id)) == events
    assert (await world.stored(response_id)).status == "failed"
    body = msgspec.json.decode(await world.service.get("t", response_id))
    assert body == end["response"]


async def test_a_run_in_the_background_goes_on_where_it_was() -> None:
    world = World()
    run = await world.begin(background=True)
    response_id = msgspec.json.decode(await run.result())["id"]
    await world.foreman.claim_once()
    followed = await world.service.follow("t", response_id)
    events = asyncio.create_task(told(followed))
    await world.idle()
    assert world.shelf.away
    await world.goes_on()
    async with asyncio.timeout(30):
        heard = await events
    assert check_events(decoded(heard)) == []
    assert decoded(heard)[-1]["type"] == "response.completed"
    assert heard == list(await world.runs.told("t", response_id))
    assert (await world.stored(response_id)).status == "completed"
    # The tool is not one that may be called again.
    assert len(world.tools.called) == 1


async def test_a_run_that_nobody_makes_is_left_to_others() -> None:
    world = World()
    run = await world.begin(background=True)
    response_id = msgspec.json.decode(await run.result())["id"]
    # Claimed, and then nobody heard of it.
    assert len(await world.runs.claim(1, brief=False)) == 1
    assert await world.runs.claim(1, brief=False) == []
    await world.foreman.renew_once()
    world.tools.results["unplug"] = lambda _: "still light"
    await world.foreman.claim_once()
    await world.idle()
    assert (await world.stored(response_id)).status == "completed"


async def test_what_comes_after_an_event_that_is_not_there_is_refused_where_that_is_known() -> None:
    world = World()
    run = await world.begin()
    world.shelf.away = False
    response_id = world.live.all[0].id
    with pytest.raises(InvalidRequest) as caught:
        await world.service.follow("t", response_id, 1000)
    assert (caught.value.param, caught.value.code) == ("starting_after", "invalid_value")
    # What could not be written yet is there for who makes it.
    events = await told(run)
    assert world.shelf.away
    last = events[-1].sequence_number
    assert last > await world.runs_last(response_id)
    assert await told(await world.service.follow("t", response_id, last)) == events
    world.shelf.away = False
    await world.foreman.renew_once()
    await world.service.follow("t", response_id, last)
    with pytest.raises(InvalidRequest):
        await world.service.follow("t", response_id, last + 1)


async def test_one_that_is_made_elsewhere_may_have_told_more_than_is_written() -> None:
    world = World()
    run = await world.begin(background=True)
    response_id = msgspec.json.decode(await run.result())["id"]
    followed = asyncio.create_task(told(await world.service.follow("t", response_id, 1000)))
    await world.foreman.claim_once()
    await world.idle()
    await world.goes_on()
    async with asyncio.timeout(30):
        await followed
    with pytest.raises(InvalidRequest):
        await world.service.follow("t", response_id, 1000)
