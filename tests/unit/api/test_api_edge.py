"""What the edge says of requests and sockets: to metrics, and to the access log."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest
from prometheus_client import generate_latest

from app.api.gateway import create_app
from app.api.services import Services
from app.tenancy.principal import Principal
from tests.unit.api.api_world import World

SECRET = "a-secret-nobody-may-see"
FIELDS = ("method", "route", "status", "tenant", "code")


def watched(world: World) -> Any:
    """The app, with its access log on."""
    services: Services = msgspec.structs.replace(world.services, access_log=True)
    world.gate.keys["sk-acme"] = Principal("acme", "key_1")
    world.app = create_app(services)
    return world.app


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    found = [record for record in caplog.records if record.name == "shepherd.access"]
    return [{name: getattr(each, name) for name in FIELDS if hasattr(each, name)} for each in found]


def text(world: World) -> str:
    return generate_latest(world.metrics.registry).decode()


async def test_a_request_is_one_line_that_says_nothing_of_what_was_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    watched(world)
    key = {"authorization": "Bearer sk-acme"}
    async with world.client() as client:
        await client.get(f"/v1/responses/resp_1?include={SECRET}", headers={**key, "x-wool": SECRET})
        await client.get(f"/v1/responses/{SECRET}", headers=key)
        await client.post("/v1/responses", json={"model": 7, "input": SECRET}, headers=key)
        await client.get("/v1/models", headers={"authorization": f"Bearer {SECRET}"})
        await client.get("/health")
        await client.request(SECRET, f"/{SECRET}", headers=key)
    one = "/v1/responses/{response_id}"
    assert lines(caplog) == [
        {"method": "GET", "route": one, "status": 400, "tenant": "acme"},
        {"method": "GET", "route": one, "status": 404, "tenant": "acme"},
        {"method": "POST", "route": "/v1/responses", "status": 400, "tenant": "acme"},
        {"method": "GET", "route": "unmatched", "status": 401},
        {"method": "GET", "route": "/health", "status": 200},
        {"method": "other", "route": "unmatched", "status": 404, "tenant": "acme"},
    ]
    # What the test's own client logs is not ours.
    for record in (each for each in caplog.records if each.name != "httpx"):
        assert SECRET not in str({**record.__dict__, "message": record.getMessage()})


async def test_nothing_is_written_unless_it_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with World().client() as client:
        await client.get("/health")
    assert lines(caplog) == []


class Line:
    """A socket without a network; `while_open` is what metrics said before the client left."""

    def __init__(self, world: World, key: str) -> None:
        self._world = world
        headers = [(b"authorization", f"Bearer {key}".encode()), (b"x-request-id", b"mine")]
        self.scope = {"type": "websocket", "path": "/v1/responses", "raw_path": b"/v1/responses", "headers": headers}
        self.scope |= {"query_string": SECRET.encode(), "root_path": "", "scheme": "ws", "subprotocols": []}
        self.said: list[Any] = []
        self.while_open = ""
        self._asked = 0

    async def receive(self) -> Any:
        self._asked += 1
        if self._asked == 1:
            return {"type": "websocket.connect"}
        self.while_open = text(self._world)
        return {"type": "websocket.disconnect", "code": 1001}

    async def send(self, message: Any) -> None:
        self.said.append(message)


async def test_a_socket_is_counted_while_it_is_open_and_logged_when_it_has_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    app = watched(world)
    open_one, refused = Line(world, "sk-acme"), Line(world, SECRET)
    await app(open_one.scope, open_one.receive, open_one.send)
    await app(refused.scope, refused.receive, refused.send)
    assert "shepherd_websockets_open 1.0" in open_one.while_open
    assert "shepherd_websockets_open 0.0" in text(world)
    for status in (101, 403):
        assert f'shepherd_websockets_total{{status="{status}"}} 1.0' in text(world)
    assert (b"x-request-id", b"mine") in open_one.said[0]["headers"]
    assert [message["type"] for message in refused.said] == ["websocket.close"]
    assert lines(caplog) == [
        {"method": "GET", "route": "/v1/responses", "status": 101, "tenant": "acme", "code": 1001},
        {"method": "GET", "route": "unmatched", "status": 403, "code": 1008},
    ]
    # What the test's own client logs is not ours.
    for record in (each for each in caplog.records if each.name != "httpx"):
        assert SECRET not in str({**record.__dict__, "message": record.getMessage()})
