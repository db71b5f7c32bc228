"""Connections to a worker that are reset: who has seen nothing yet never notices, and the others end at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.support.failing_workers import EAGER, PATIENCE_SECS, Wire, Worker, ask, ask_all, fate, gateway_beside, wire

pytestmark = pytest.mark.slow

TEXTS = [f"request {number}" for number in range(30)]
# The breaker would keep turns away from the worker that this is about.
FLAGS = ("--policy", "round_robin", "--cb-failure-threshold", "1000")


@asynccontextmanager
async def broken_and_sound(tmp_path: Path) -> AsyncGenerator[tuple[str, Wire]]:
    """A gateway with two workers, to one of which there is a wire that can be broken."""
    workers = [Worker("--token-ms", "2") for _ in range(2)]
    try:
        async with wire(workers[0].port) as broken:
            urls = ["--worker-urls", broken.url, workers[1].url]
            async with gateway_beside(tmp_path, *urls, *EAGER, *FLAGS) as url:
                yield url, broken
    finally:
        for worker in workers:
            worker.stop()


async def nothing() -> None:
    """Nothing happens meanwhile."""


async def fates(url: str, tokens: int = 16) -> list[str]:
    return [fate(each) for each in await ask_all(url, TEXTS, nothing(), tokens=tokens)]


async def statuses(url: str, tokens: int) -> list[str]:
    """How as many responses end that are not streamed. Those that are as long as they may be are incomplete."""
    body = {"model": "simulated", "store": False, "max_output_tokens": tokens, "ignore_eos": True}

    async def status(text: str) -> str:
        async with session.post(f"{url}/v1/responses", json={**body, "input": text}) as answer:
            assert answer.status == 200, await answer.text()
            return (await answer.json())["status"]

    timeout = aiohttp.ClientTimeout(total=PATIENCE_SECS)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        return await asyncio.gather(*(status(text) for text in TEXTS))


async def wait_for_health(url: str, wanted: bool, broken: Wire) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(PATIENCE_SECS):
        while True:
            async with session.get(f"{url}/workers/{broken.url}") as answer:
                if (await answer.json())["is_healthy"] is wanted:
                    return
            await asyncio.sleep(0.05)


async def test_resets_at_every_moment(tmp_path: Path) -> None:
    async with broken_and_sound(tmp_path) as (url, broken):
        assert await fates(url) == ["completed"] * 30

        # When the request came: who has seen nothing goes elsewhere.
        broken.mode = "resets requests"
        assert await fates(url) == ["completed"] * 30
        assert broken.resets > 0

        # In the middle of an answer: those turns end, legally and as failed, and no others do.
        broken.resets, broken.mode = 0, "resets answers"
        told = await fates(url, tokens=100)
        assert "failed early" not in told
        assert 0 < told.count("failed") <= broken.resets
        assert told.count("completed") >= 15
        # Who waits for one answer has not seen any of it, and gets another one.
        assert await statuses(url, tokens=100) == ["incomplete"] * 30

        # While they were kept for the next turn, again and again: that turn just opens another one.
        broken.mode = "sound"
        await wait_for_health(url, True, broken)
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECS)
        async with aiohttp.ClientSession(timeout=timeout, headers={"x-shepherd-target-worker": broken.url}) as session:
            for number in range(9):
                assert fate(await ask(session, url, f"request {number}")) == "completed"
                broken.cut()

        # When they are opened, until the worker is found to be down; and when it is back it is used again.
        broken.resets, broken.mode = 0, "refuses"
        broken.cut()
        assert await fates(url) == ["completed"] * 30
        await wait_for_health(url, False, broken)
        assert broken.resets > 0
        broken.mode = "sound"
        await wait_for_health(url, True, broken)
        assert await fates(url) == ["completed"] * 30
