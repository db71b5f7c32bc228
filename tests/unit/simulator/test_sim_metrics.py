"""What a simulated worker tells Prometheus is what it does."""

from __future__ import annotations

import asyncio

import pytest

from app.routing.engine_load import EngineLoad, parse
from tests.unit.simulator.sim_world import CHAT, hello, worker


@pytest.mark.parametrize(
    ("engine", "path"), [("vllm", "/metrics"), ("sglang", "/metrics"), ("trtllm", "/prometheus/metrics")]
)
async def test_as_each_engine_tells_it(engine: str, path: str) -> None:
    async with worker(metrics=engine, api_key="k") as client:
        assert parse((await client.get(path)).text) == EngineLoad(0, 0, 0.0)


async def test_an_engine_without_metrics() -> None:
    async with worker(metrics="none") as client:
        assert (await client.get("/metrics")).status_code == 404


@pytest.mark.parametrize("settings", [{"token_ms": 200.0}, {"engine": "batch", "cache_tokens": 160, "step_ms": 200.0}])
async def test_requests_count_while_they_are_there(settings: dict[str, object]) -> None:
    async with worker(**settings) as client:

        async def load() -> EngineLoad:
            told = parse((await client.get("/metrics")).text)
            assert told is not None
            return told

        body = hello(max_tokens=100, ignore_eos=True)
        asked = [asyncio.create_task(client.post(CHAT, json=body)) for _ in range(2)]
        async with asyncio.timeout(30):
            while (told := await load()).running + told.waiting < 2:  # noqa: ASYNC110 - another server
                await asyncio.sleep(0.01)
        # The memory of the shared engine is for one of them.
        assert told.waiting == ("engine" in settings)
        assert (told.memory > 0.5) == ("engine" in settings)
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        async with asyncio.timeout(30):
            while await load() != EngineLoad(0, 0, 0.0):  # noqa: ASYNC110 - another server
                await asyncio.sleep(0.01)
