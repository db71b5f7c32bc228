"""How a WebSocket ends: by its client, by age, by shutdown; and what that means for what runs on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from app.api import socket
from app.api.principal import _KEPT
from app.responses.settings import ResponsesSettings
from app.tenancy.principal import ANYONE
from tests.support.clocks import put_forward
from tests.unit.api.api_world import World, event, within

ASK = {"type": "response.create", "model": "m", "input": "hi"}


class Line:
    """One connection, without a network."""

    def __init__(self, world: World, socket_secs: float, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.services = msgspec.structs.replace(world.services, socket_secs=socket_secs)
        self.scope: Any = {"type": "websocket", "path": "/v1/responses", "headers": headers, _KEPT: ANYONE}
        self.inward: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.outward: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.inward.put_nowait({"type": "websocket.connect"})

    def say(self, frame: object) -> None:
        self.inward.put_nowait({"type": "websocket.receive", "text": json.dumps(frame)})

    def leave(self) -> None:
        self.inward.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def hear(self) -> dict[str, Any]:
        message = await within(self.outward.get())
        return json.loads(message["text"]) if message["type"] == "websocket.send" else message

    async def serve(self) -> None:
        await socket.serve(self.services, self.scope, self.inward.get, self.outward.put)  # type: ignore[arg-type]


@asynccontextmanager
async def connected(world: World, socket_secs: float = 60.0, **more: Any) -> AsyncIterator[Line]:
    line = Line(world, socket_secs, **more)
    serving = asyncio.create_task(line.serve())
    assert (await line.hear())["type"] == "websocket.accept"
    yield line
    await within(serving)


def begin(world: World) -> None:
    created = b'{"type":"response.created","sequence_number":0,"response":{"id":"resp_1"}}'
    world.responses.run.log.append([msgspec.structs.replace(event(0, "response.created"), data=created)])


def end(world: World) -> None:
    world.responses.run.log.append([event(1, "response.completed")])
    world.responses.run.log.close()


async def test_a_client_that_leaves_is_not_waited_for() -> None:
    world = World()
    begin(world)
    async with connected(world) as line:
        line.say(ASK)
        assert (await line.hear())["type"] == "response.created"
        line.leave()
    assert world.responses.run.detached.is_set()


async def test_how_many_lanes_are_busy_is_a_setting() -> None:
    world = World()
    begin(world)
    bounds = ResponsesSettings(socket_lanes=1).socket_bounds
    world.services = msgspec.structs.replace(world.services, socket_bounds=bounds)
    async with connected(world) as line:
        line.say({**ASK, "stream_id": "a"})
        assert (await line.hear())["type"] == "response.created"
        line.say({**ASK, "stream_id": "b"})
        refused = await line.hear()
        assert (refused["error"]["code"], refused["stream_id"]) == ("websocket_stream_limit_reached", "b")
        line.leave()


async def test_what_was_begun_is_finished_when_the_time_is_up() -> None:
    world = World()
    begin(world)
    async with connected(world, socket_secs=60) as line:
        line.say(ASK)
        assert (await line.hear())["type"] == "response.created"
        put_forward(60)
        old = await line.hear()
        assert (old["status"], old["error"]["code"]) == (400, "websocket_connection_limit_reached")
        line.say(ASK)
        assert (await line.hear())["error"]["code"] == "websocket_connection_limit_reached"
        end(world)
        assert (await line.hear())["type"] == "response.completed"
        closed = await line.hear()
        assert (closed["type"], closed["code"]) == ("websocket.close", 1001)
    assert len(world.responses.asked) == 1


async def test_a_server_that_stops_says_so_and_closes_for_another() -> None:
    world = World()
    world.state = msgspec.structs.replace(world.state, draining=True)
    async with connected(world) as line:
        line.say({**ASK, "stream_id": "a"})
        error = await line.hear()
        assert (error["status"], error["error"]["code"], error["stream_id"]) == (503, "server_shutting_down", "a")
        closed = await line.hear()
        assert (closed["type"], closed["code"]) == ("websocket.close", 1012)
    assert world.responses.asked == []


async def test_a_fault_of_ours_costs_one_request() -> None:
    world = World()
    world.responses.fault = ZeroDivisionError()
    async with connected(world) as line:
        line.say(ASK)
        error = await line.hear()
        assert (error["status"], error["error"]["code"]) == (500, "internal_error")
        world.responses.fault = None
        begin(world)
        end(world)
        line.say(ASK)
        assert [(await line.hear())["type"] for _ in range(2)] == ["response.created", "response.completed"]
        line.leave()


async def test_a_response_without_an_end_is_followed_by_an_error() -> None:
    world = World()
    begin(world)
    world.responses.run.log.close()
    world.responses.run.finished.set_result(b"{}")
    async with connected(world) as line:
        line.say(ASK)
        assert (await line.hear())["type"] == "response.created"
        assert (await line.hear())["error"]["code"] == "response_ended"
        line.leave()


async def test_a_reader_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "SEND_SECS", 0.05)
    world = World()
    begin(world)
    line = Line(world, 60.0)
    line.outward = asyncio.Queue(1)
    serving = asyncio.create_task(line.serve())
    line.say(ASK)
    await within(serving)
    assert world.responses.asked
    assert world.responses.run.detached.is_set()


@pytest.mark.parametrize("header", [(b"origin", b"https://wolf.example"), (b"x-shepherd-profile", b"wool")])
async def test_who_may_not_connect_is_told_before(header: tuple[bytes, bytes]) -> None:
    line = Line(World(), 60.0, ((b"host", b"shepherd.example"), header))
    await within(line.serve())
    assert (await line.hear())["code"] == 1008


async def test_a_page_of_our_own_may_connect() -> None:
    headers = ((b"host", b"shepherd.example:30000"), (b"origin", b"http://shepherd.example:30000"))
    async with connected(World(), headers=headers) as line:
        line.leave()
