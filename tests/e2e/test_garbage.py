"""Garbage at every endpoint, on either database: whatever is sent, the answer is an error that says what is wrong."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Struct

from app.api.errors import error_type
from app.api.gateway import create_app
from app.boot.rooms import opened
from app.db.engine import Database, with_driver
from app.db.migrate import upgrade
from app.db.settings import DatabaseSettings
from app.mcp.settings import McpSettings
from app.routing.settings import RoutingSettings
from app.settings.server import ServerSettings
from app.settings.tree import Settings
from tests.support import garbage
from tests.support.garbage import Spoiled
from tests.support.mcp_servers import demo, mcp_server
from tests.support.processes import simulator


class World(Struct):
    """An open gateway in this process, its description, and the names of what it has."""

    client: httpx.AsyncClient
    document: Any
    named: dict[str, str]


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    with simulator() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
async def world(request: pytest.FixtureRequest, worker: str, tmp_path: Path) -> AsyncIterator[World]:
    url = f"sqlite:///{tmp_path}/history.db"
    if request.param == "postgres":
        url = await request.getfixturevalue("postgres").create(f"e2e_{uuid.uuid4().hex}")
    database = DatabaseSettings(url=url, sqlite_synchronous="normal")
    made = Database(with_driver(url), database)
    await upgrade(made)
    await made.close()
    settings = Settings(
        routing=RoutingSettings(worker_urls=(worker,)),
        server=ServerSettings(data_dir=str(tmp_path), port=0),
        mcp=McpSettings(allow_loopback=True),
        db=database,
    )
    async with AsyncExitStack() as stack:
        tools = await stack.enter_async_context(mcp_server(demo()))
        rooms = await stack.enter_async_context(opened(settings))
        transport = httpx.ASGITransport(create_app(rooms.services), raise_app_exceptions=True)  # type: ignore[arg-type]
        client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60)
        yield await populated(await stack.enter_async_context(client), tools.url)


async def populated(client: httpx.AsyncClient, tools: str) -> World:
    """A world in which there is one of everything."""

    async def made(path: str, body: Any) -> Any:
        answer = await client.post(path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    talk = (await made("/v1/conversations", {"items": [{"role": "user", "content": "x"}]}))["id"]
    await made("/admin/v1/mcp/servers", {"label": "demo", "config": {"url": tools, "rules": {"trusted": True}}})
    named = {
        "response_id": (await made("/v1/responses", {"model": "simulated", "input": "x"}))["id"],
        "conversation_id": talk,
        "item_id": (await client.get(f"/v1/conversations/{talk}/items")).json()["data"][0]["id"],
        "prompt_id": (await made("/v1/prompts", {"instructions": "x"}))["id"],
        "label": "demo",
        "whose": "shared",
        "approval_id": "mcpr_nothing",
        "name": "nobody",
        "model": "simulated",
    }
    return World(client, (await client.get("/openapi.json")).json(), named)


def faults(sent: Spoiled, answer: httpx.Response) -> Iterator[str]:
    """What is wrong with an answer."""
    status = answer.status_code
    if status < 400:
        return
    if status >= 500:
        yield f"{status}"
    if answer.headers["content-type"] != "application/json":
        yield f"{status} as {answer.headers['content-type']}"
        return
    error = answer.json()["error"]
    if set(error) != {"message", "type", "param", "code"} or not error["message"]:
        yield f"{status} says {error}"
    if error["type"] != error_type(status):
        yield f"{status} is no {error['type']}"
    # JSON that cannot be read is not read as far as the field, and what else is missing may be missed first.
    otherwise = error["code"] in {"invalid_json", "missing_required_parameter"}
    if status == 400 and sent.field is not None and not (otherwise or str(error["param"]).startswith(sent.field)):
        yield f"400 names {error['param']} instead of {sent.field}: {error['message']}"
    if status == 400 and "?" in sent.path and error["param"] is None:
        yield f"400 names no parameter: {error['message']}"


async def judged(world: World, sent: Iterator[Spoiled]) -> tuple[list[str], dict[int, int]]:
    """What is wrong with the answers to all that, and how many there were of each status."""
    found: list[str] = []
    statuses: dict[int, int] = {}
    several = asyncio.Semaphore(8)

    async def send(each: Spoiled) -> None:
        async with several:
            headers = {"if-match": '"1"'} | (
                {"content-type": each.kind} if each.kind and each.content is not None else {}
            )
            try:
                answer = await world.client.request(each.method, each.path, content=each.content, headers=headers)
            except Exception as error:  # noqa: BLE001 - a stream that breaks is a fault like any other
                found.append(f"{each}: {error!r}")
                return
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            found.extend(f"{each}: {fault}" for fault in faults(each, answer))

    await asyncio.gather(*(send(each) for each in sent))
    return found, statuses


async def test_urls(world: World) -> None:
    found, statuses = await judged(world, garbage.urls(world.document, world.named))
    assert found == []
    assert statuses[400] > 200
    assert statuses[404] > 200
    assert statuses[405] > 50


async def test_bodies(world: World) -> None:
    found, statuses = await judged(world, garbage.bodies(world.document, world.named))
    assert found == []
    assert statuses[400] > 1000
    assert statuses[415] > 50


@pytest.mark.parametrize("world", ["sqlite"], indirect=True)
async def test_items_and_tools(world: World) -> None:
    tools = (garbage.asked(tools=[tool]) for tool in garbage.TOOLS)
    settings = (garbage.asked(**fields) for fields in garbage.SETTINGS.values())
    for whole in (*map(garbage.with_items, garbage.ITEMS), *tools, *settings):
        answer = await world.client.post("/v1/responses", json=whole)
        assert answer.status_code == 200, (whole, answer.text)
    found, statuses = await judged(world, garbage.items_and_tools())
    assert found == []
    assert statuses[400] > 500


async def test_what_administrators_send(world: World) -> None:
    for method, path, whole in garbage.ADMINISTERED:
        answer = await world.client.request(method, path, json=whole, headers={"if-match": '"0"'})
        assert answer.status_code < 300, (path, answer.text)
    found, statuses = await judged(world, garbage.administered())
    assert found == []
    assert statuses[400] > 300
