"""An engine that is asked for its cache events, as TensorRT-LLM is: over HTTP, and what was told once is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from aiohttp import web

from app.routing.kv_events import trtllm
from app.routing.kv_events.poller import Poller
from app.routing.kv_events.words import Batch, Removed, Stored
from tests.support.waiting import eventually


class Engine:
    """The twin: events that wait to be fetched, and whether it fails."""

    def __init__(self) -> None:
        self.waiting: list[dict[str, Any]] = []
        self.fails = False
        self.url = ""

    def stored(self, number: int, block: int) -> None:
        """A block of two tokens is held from now on."""
        tokens = [{"token_id": block, "token_extra_id": 0}, {"token_id": 2, "token_extra_id": 0}]
        blocks = [{"block_hash": block, "tokens": tokens, "cache_level": 0, "priority": 35}]
        self.waiting.append({"event_id": number, "data": {"type": "stored", "parent_hash": None, "blocks": blocks}})

    def removed(self, number: int, block: int) -> None:
        """It is not any more."""
        self.waiting.append({"event_id": number, "data": {"type": "removed", "block_hashes": [block]}})

    async def answer(self, _: web.Request) -> web.Response:
        if self.fails:
            return web.Response(status=500)
        told, self.waiting = self.waiting, []
        return web.json_response(told)


class Heard:
    """What a listener was told, in words."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def heard(self, batch: Batch) -> None:
        for each in batch.told:
            match each:
                case Stored() | Removed():
                    self.told.append(f"{type(each).__name__} {list(each.hashes)}")
                case _:
                    self.told.append("Cleared")

    def void(self, rank: int | None = None) -> None:
        assert rank is None
        self.told.append("void")

    def lost(self) -> None:
        if self.told[-1:] != ["lost"]:
            self.told.append("lost")


@contextlib.asynccontextmanager
async def followed() -> AsyncGenerator[tuple[Engine, list[str]]]:
    engine, heard = Engine(), Heard()
    app = web.Application()
    app.router.add_post("/kv_cache_events", engine.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/kv_cache_events"
    task = asyncio.create_task(Poller(url, trtllm.Decoder(), heard, every_secs=0.001, away_secs=0.001).run())
    try:
        yield engine, heard.told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()


async def test_events_in_order() -> None:
    async with followed() as (engine, told):
        engine.stored(0, 7)
        await eventually(lambda: len(told) == 1)
        engine.removed(1, 7)
        await eventually(lambda: len(told) == 2)
        assert told == ["Stored [7]", "Removed [7]"]


async def test_what_is_missing_voids_what_was_known() -> None:
    async with followed() as (engine, told):
        engine.stored(0, 7)
        engine.stored(3, 8)
        await eventually(lambda: len(told) == 3)
        assert told == ["Stored [7]", "void", "Stored [8]"]


async def test_an_engine_that_began_anew_and_one_that_fails() -> None:
    async with followed() as (engine, told):
        engine.stored(0, 7)
        engine.stored(1, 8)
        await eventually(lambda: len(told) == 2)
        engine.fails = True
        await eventually(lambda: told[-1] == "lost")
        engine.stored(0, 9)
        engine.fails = False
        await eventually(lambda: len(told) == 5)
        assert told[2:] == ["lost", "void", "Stored [9]"]
