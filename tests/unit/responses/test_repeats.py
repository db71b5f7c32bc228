"""The same request with the same key makes one response, whoever asks when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from app.db.engine import Database, with_driver
from app.db.migrate import upgrade
from app.db.settings import DatabaseSettings
from app.dialects.openai_responses.decode import decode_create
from app.dialects.openai_responses.encode import Event
from app.history.request_keys import SqlRequestKeys
from app.history.seal import Clear
from app.responses import repeats
from app.responses.circumstances import USUAL
from app.responses.ports import LeaseLost
from app.responses.repeats import Repeatable, Repeats
from app.turn.errors import Conflict, GatewayError, InvalidRequest, NotFound
from app.turn.events import Hear, TurnEvent
from app.turn.ids import CountedIds
from app.turn.request import TurnRequest
from tests.support.scripted import Scripted, fails, says


class Gate:
    """A model that answers once it is let."""

    def __init__(self, world: Scripted) -> None:
        self.open = asyncio.Event()
        self._stream = world.model.stream
        world.model.stream = self.stream

    async def stream(self, request: TurnRequest, hear: Hear | None = None) -> AsyncIterator[TurnEvent]:
        await self.open.wait()
        async for event in self._stream(request):
            yield event


class World:
    """A scripted service whose requests may be repeated."""

    def __init__(self, database: Database) -> None:
        self.inner = Scripted()
        self.keys = SqlRequestKeys(database, Clear())
        inner = self.inner
        self.repeats = Repeats(
            inner.service, inner.service._runs, self.keys, inner.ports.events, CountedIds(), inner.clock.now
        )

    async def ask(self, key: str = "k", **body: Any) -> Any:
        raw = msgspec.json.encode({"model": "m", "input": "Hi", **body})
        asked = Repeatable(tenant="t", principal="", circumstances=USUAL, key=key, body=raw)
        return await self.repeats.create(asked, decode_create(raw))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = Database(with_driver(f"sqlite:///{tmp_path / 'keys.db'}"), DatabaseSettings())
    await upgrade(database)
    yield World(database)
    await database.close()


async def events(run: Any) -> list[bytes]:
    return [event.data async for batch in run.follow() for event in batch]


async def test_a_repetition_is_answered_with_the_response_there_is(world: World) -> None:
    world.inner.model.turns = [says("Hello")]
    first = await (await world.ask()).result()
    again = await world.ask()
    assert await again.result() == first
    assert await events(again) == await events(await world.ask())
    assert len(world.inner.model.asked) == 1


async def test_who_comes_while_it_is_made_follows_it(world: World) -> None:
    gate = Gate(world.inner)
    world.inner.model.turns = [says("Hello")]
    runs = await asyncio.gather(*(world.ask(stream=True) for _ in range(5)))
    waiting = [asyncio.create_task(events(run)) for run in runs]
    for run in runs[1:]:
        run.detach()
    gate.open.set()
    told = await asyncio.gather(*waiting)
    assert len(told[0]) > 4
    assert all(each == told[0] for each in told)
    assert len(world.inner.model.asked) == 1


async def test_who_came_while_it_was_made_follows_it_to_where_it_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gate(world.inner)
    _, second = [await world.ask(stream=True) for _ in range(2)]
    (run,) = world.inner.live.all
    asked: list[int] = []

    async def elsewhere(_tenant: str, _response_id: str, after: int) -> AsyncIterator[list[Event]]:
        asked.append(after)
        yield [Event(after + 1, "response.completed", b"made elsewhere")]

    monkeypatch.setattr(world.inner.ports.events, "follow", elsewhere)
    run.broken(LeaseLost("It is made elsewhere."))
    told = await asyncio.wait_for(events(second), 30)
    assert told[-1] == b"made elsewhere"
    assert asked == [len(told) - 2]


async def test_a_request_that_is_not_stored_can_be_followed_but_not_found_again(world: World) -> None:
    gate = Gate(world.inner)
    world.inner.model.turns = [says("Hello")]
    first, second = [await world.ask(store=False) for _ in range(2)]
    gate.open.set()
    assert await first.result() == await second.result()
    with pytest.raises(Conflict) as caught:
        await world.ask(store=False)
    assert caught.value.code == "idempotent_response_gone"
    assert len(world.inner.model.asked) == 1


async def test_another_request_may_not_use_the_key(world: World) -> None:
    world.inner.model.turns = [says("Hello"), says("Hello")]
    await (await world.ask()).result()
    for other in ({"input": "Bye"}, {"stream": True}, {"metadata": {"a": "b"}}):
        with pytest.raises(Conflict) as caught:
            await world.ask(**other)
        assert (caught.value.status, caught.value.code) == (409, "idempotency_key_reused")
    await (await world.ask("another key", input="Bye")).result()


async def test_what_never_began_leaves_the_key_free(world: World) -> None:
    for wrong in ({"previous_response_id": "resp_none"}, {"input": [{"role": "nobody", "content": ""}]}):
        with pytest.raises(GatewayError):
            await world.ask(**wrong)
    with pytest.raises(NotFound):
        await world.ask(conversation="conv_none")
    world.inner.model.turns = [says("Hello")]
    assert b"Hello" in await (await world.ask()).result()


async def test_a_response_that_failed_is_the_response(world: World) -> None:
    world.inner.model.turns = [fails("boom"), says("Hello")]
    with pytest.raises(GatewayError):
        await (await world.ask()).result()
    again = msgspec.json.decode(await (await world.ask()).result())
    assert (again["status"], again["error"]["code"]) == ("failed", "boom")
    assert len(world.inner.model.asked) == 1


async def test_the_key_is_good_for_a_day(world: World) -> None:
    world.inner.model.turns = [says("Hello"), says("Good morning")]
    await (await world.ask()).result()
    world.inner.clock.time += repeats.LASTS_SECS - 1
    assert b"Hello" in await (await world.ask()).result()
    world.inner.clock.time += 1
    assert b"Good morning" in await (await world.ask()).result()


async def test_a_key_held_by_a_server_that_died_is_waited_for_and_then_free(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "WAIT_SECS", 0.0)
    raw = msgspec.json.encode({"model": "m", "input": "Hi"})
    dead = Repeatable(tenant="t", principal="", circumstances=USUAL, key="k", body=raw)
    await world.repeats._hold(dead, repeats.hashlib.sha256(raw).digest(), "resp_dead")
    with pytest.raises(Conflict) as caught:
        await world.ask()
    assert (caught.value.code, caught.value.retry_after) == ("idempotency_key_in_use", 1)
    world.inner.clock.time += repeats.STALE_SECS + 1
    world.inner.model.turns = [says("Hello")]
    assert b"Hello" in await (await world.ask()).result()


async def test_a_client_that_leaves_while_it_begins_leaves_a_response_behind_or_nothing(world: World) -> None:
    Gate(world.inner)
    world.inner.model.turns = [says("Hello")]
    asking = asyncio.create_task(world.ask())
    # Seen at the very turn of the loop at which the run begins: a little later the question is answered.
    async with asyncio.timeout(30):
        while not world.inner.service._runs.all:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    (run,) = world.inner.service._runs.all
    again = await world.ask()
    assert again.result == run.result


@pytest.mark.parametrize("key", ["", "x" * 256, "naïve", "a\nb"])
async def test_a_key_has_to_look_like_one(world: World, key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await world.ask(key)
    assert caught.value.code == "invalid_idempotency_key"
