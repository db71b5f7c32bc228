"""Asking workers how they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.backends.probe import HttpProbe
from app.backends.settings import BackendSettings
from app.backends.workers import Workers
from app.responses.ports import ModelInfo
from app.turn.errors import GatewayError
from app.turn.ids import CountedIds
from tests.support.raw_http import Peer, RawServer, raw_server, sized

NOT_FOUND = sized(b"{}", status=b"HTTP/1.1 404 Not Found\r\n")
BROKEN = sized(b"{}", status=b"HTTP/1.1 500 Broken\r\n")
KEYED = sized(b"{}", status=b"HTTP/1.1 401 Who\r\n")
GATEWAY = sized(b"{}", status=b"HTTP/1.1 504 Late\r\n")
LOADING = sized(b"{}", status=b"HTTP/1.1 503 Loading\r\n")


def paths(**answers: bytes) -> Callable[[Peer], Awaitable[None]]:
    """Answers `/health` and `/v1/models`; anything else is not there."""

    async def behave(peer: Peer) -> None:
        while True:
            target = (await peer.request()).split(b" ")[1].decode()
            await peer.send(answers.get(target.rpartition("/")[2], NOT_FOUND))

    return behave


@asynccontextmanager
async def probed(
    behave: Callable[[Peer], Awaitable[None]], key: str | None = None
) -> AsyncGenerator[tuple[HttpProbe, RawServer]]:
    async with raw_server(behave) as server:
        workers = Workers(BackendSettings(), CountedIds())
        try:
            yield workers.probe(lambda _: key), server
        finally:
            await workers.close()


async def test_metrics_are_text_or_are_not_there() -> None:
    async with probed(paths(metrics=sized(b"vllm:num_requests_running 1\n\xff"))) as (probe, server):
        assert await probe.metrics(server.url, "/metrics") == "vllm:num_requests_running 1\n\ufffd"
        assert await probe.metrics(server.url, "/prometheus") is None


@pytest.mark.parametrize(
    "answers",
    [
        {"health": sized(b"")},
        {"health": sized(b"{}")},
        {"models": sized(b"{}")},
        {"health": sized(b"", status=b"HTTP/1.1 405 No\r\n"), "models": sized(b"{}")},
    ],
)
async def test_a_worker_that_is_well(answers: dict[str, bytes]) -> None:
    async with probed(paths(**answers)) as (probe, server):
        await probe.check(server.url)


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ({"health": LOADING, "models": sized(b"{}")}, "GET /health with status 503."),
        ({"health": BROKEN}, "GET /health with status 500."),
        ({"health": KEYED}, "GET /health with status 401: it wants another API key."),
        ({"models": BROKEN}, "GET /v1/models with status 500."),
        ({"models": GATEWAY}, "GET /v1/models with status 504."),
        ({}, "GET /v1/models with status 404."),
    ],
)
async def test_a_worker_that_is_not_well_and_why(answers: dict[str, bytes], wrong: str) -> None:
    async with probed(paths(**answers)) as (probe, server):
        with pytest.raises(GatewayError) as caught:
            await probe.check(server.url)
    # An answer that says of somebody else that it is late is not late itself.
    assert (caught.value.status, caught.value.message) == (502, f"The worker answers {wrong}")


@pytest.mark.parametrize(
    ("body", "models"),
    [
        (
            {"object": "list", "data": [{"id": "m", "object": "model", "created": 7, "owned_by": "me", "x": 1}]},
            [ModelInfo("m", 7, "me")],
        ),
        (
            {"data": [{"id": "a"}, {"id": "b", "created": 1.5, "owned_by": None}]},
            [ModelInfo("a", 0, ""), ModelInfo("b", 1, "")],
        ),
        ({"data": [{"id": "lora", "parent": "m"}]}, [ModelInfo("lora", 0, "", adapter=True)]),
        ({"data": []}, []),
        ({"data": None}, []),
    ],
)
async def test_models(body: Any, models: list[ModelInfo]) -> None:
    async with probed(paths(models=sized(json.dumps(body).encode()))) as (probe, server):
        assert await probe.models(server.url) == models


async def test_a_worker_without_a_list_of_models() -> None:
    async with probed(paths()) as (probe, server):
        assert await probe.models(server.url) is None


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (BROKEN, "status 500"),
        (KEYED, "status 401: it wants another API key"),
        (sized(b"{"), "cannot be read"),
        (sized(b'{"data": [{"id": 5}]}'), "cannot be read"),
        (sized(b"\xff"), "cannot be read"),
    ],
)
async def test_a_list_of_models_that_is_none(answer: bytes, wrong: str) -> None:
    async with probed(paths(models=answer)) as (probe, server):
        with pytest.raises(GatewayError, match=wrong):
            await probe.models(server.url)


async def test_a_worker_that_is_away() -> None:
    async with raw_server(paths()) as server:
        url = server.url
    workers = Workers(BackendSettings(), CountedIds())
    with pytest.raises(GatewayError, match="connection refused") as caught:
        await workers.probe(lambda _: None).check(url)
    assert (caught.value.status, caught.value.code) == (502, "upstream_unreachable")


async def test_the_key_and_the_base_url() -> None:
    async with probed(paths(health=sized(b"")), key="k") as (probe, server):
        await probe.check(f"{server.url}/v1")
    assert server.requests[0].startswith(b"GET /health HTTP/1.1\r\n")
    assert b"\r\nauthorization: Bearer k\r\n" in server.requests[0]


async def test_a_probe_that_is_given_up_leaves_nothing_behind() -> None:
    gone = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        patience.reschedule(asyncio.get_running_loop().time())
        await peer.gone()
        gone.set()

    async with probed(behave) as (probe, server):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30) as patience:
                await probe.check(server.url)
        async with asyncio.timeout(30):
            await gone.wait()
