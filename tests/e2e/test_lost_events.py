"""Cache events that do not arrive: the stream is cut, and replayed or not; the engine is killed and begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.failing_workers import EAGER, PATIENCE_SECS, Wire, Worker, gateway_beside, wire
from tests.support.ports import free_port

pytestmark = pytest.mark.slow

# A prompt of 8,000 tokens, which are 125 blocks of 64 in the router's index.
CHARS, BLOCKS, SLACK = 32_000, 125, 5


class Scene:
    """A worker whose events go over a wire to a gateway, and prompts that only the worker is told of."""

    def __init__(self, client: httpx.AsyncClient, worker: Worker, events: Wire) -> None:
        self.worker = worker
        self.events = events
        self.gateway = ""
        self._client = client
        self._said = 0

    async def cache(self, name: str) -> None:
        """The worker reads a prompt, which the gateway can only learn of by events."""
        body = {"model": "simulated", "messages": [{"role": "user", "content": (f"{name} sheep " * CHARS)[:CHARS]}]}
        answer = await self._client.post(f"{self.worker.url}/v1/chat/completions", json={**body, "max_tokens": 1})
        assert answer.status_code == 200, answer.text

    async def view(self) -> dict[str, Any]:
        """The worker as the gateway sees it."""
        return (await self._client.get(f"{self.gateway}/workers/{self.worker.url}")).json()

    async def holds(self, least: int, most: int) -> None:
        """Wait until the gateway knows of so many prompts."""
        last: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE_SECS):
                while not least * BLOCKS - SLACK <= last.get("cached_blocks", -1) <= most * BLOCKS + SLACK:
                    await asyncio.sleep(0.05)
                    last = await self.view()
        except TimeoutError:
            raise AssertionError(f"{least} to {most} prompts are not what is known: {last}") from None

    async def says_until_heard(self) -> int:
        """Prompts one after the other until the gateway hears; how many that took."""
        said = 0
        async with asyncio.timeout(PATIENCE_SECS):
            while not (await self.view())["cache_events"]:
                said += 1
                self._said += 1
                await self.cache(f"prompt {self._said}")
                await asyncio.sleep(0.5)
        return said

    async def hears_nothing(self) -> None:
        """Wait until the gateway has noticed that nobody speaks."""
        async with asyncio.timeout(PATIENCE_SECS):
            while (await self.view())["cache_events"]:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)

    async def loses_one_and_hears_again(self) -> tuple[int, int]:
        """How many prompts there were before the stream was cut, and after it was whole; one is between them."""
        # What is said before somebody listens is missed too; the first message that is heard shows it.
        before = await self.says_until_heard()
        self.events.mode = "refuses"
        self.events.cut()
        await self.hears_nothing()
        await self.cache("missed")
        self.events.mode = "sound"
        # The socket tries again by itself, and what is said until then is missed as well.
        return before, await self.says_until_heard()


@asynccontextmanager
async def scene(client: httpx.AsyncClient) -> AsyncGenerator[tuple[Scene, str, str]]:
    """A worker, where its events come from, and where past ones can be asked for."""
    stream, past = free_port(), free_port()
    worker = Worker(
        "--engine", "batch", "--prompt-token-us", "1", "--step-ms", "1",
        "--kv-events", f"tcp://127.0.0.1:{stream}", "--kv-replay", f"tcp://127.0.0.1:{past}",
    )  # fmt: skip
    try:
        async with wire(stream) as events:
            yield Scene(client, worker, events), f"tcp://127.0.0.1:{events.port}", f"tcp://127.0.0.1:{past}"
    finally:
        worker.stop()


async def test_what_is_missed_is_asked_for_or_what_was_known_is_dropped(tmp_path: Path) -> None:
    async with (
        httpx.AsyncClient(timeout=PATIENCE_SECS, trust_env=False) as client,
        scene(client) as (whole, stream, past),
        scene(client) as (holed, other, _),
        gateway_beside(
            tmp_path, "--worker-urls", whole.worker.url, holed.worker.url, "--kv-events", f"{stream},{past}", other,
            "--router-tokens", "engine", *EAGER,
        ) as url,
    ):  # fmt: skip
        whole.gateway = holed.gateway = url
        (before, after), (_, alone) = await asyncio.gather(
            whole.loses_one_and_hears_again(), holed.loses_one_and_hears_again()
        )
        # Where past messages can be had nothing is missing; where not, what was known before is not relied upon.
        await whole.holds(before + 1 + after, before + 1 + after)
        await holed.holds(1, alone)

        # An engine that is killed counts from 0 again, and holds nothing but what it reads then.
        await asyncio.to_thread(whole.worker.kill)
        await whole.hears_nothing()
        await asyncio.to_thread(whole.worker.start)
        anew = await whole.says_until_heard()
        await whole.holds(anew, anew)
