"""Everything a worker can be told to do wrong, seen by a client."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.simulator.reply import Fault
from app.simulator.script import Script, ScriptedReply
from tests.unit.simulator.sim_world import CHAT, hello, tool, worker

pytestmark = pytest.mark.slow

PATHS: Mapping[str, dict[str, Any]] = {
    CHAT: hello(),
    "/v1/completions": {"model": "simulated", "prompt": "Hello"},
    "/v1/embeddings": {"model": "simulated", "input": "Hello"},
}


@pytest.mark.parametrize("path", PATHS)
async def test_a_status(path: str) -> None:
    async with worker(fail_status=429, retry_after_secs=7) as client:
        answer = await client.post(path, json=PATHS[path])
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 200
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.json()["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("path", PATHS)
async def test_hanging(path: str) -> None:
    async with worker(hang=True) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(path, json=PATHS[path], timeout=httpx.Timeout(60, read=0.2))
        assert (await client.get("/health")).status_code == 200


@asynccontextmanager
async def lines(client: httpx.AsyncClient, silence: float = 60, **fields: Any) -> AsyncIterator[list[str]]:
    """The data of a stream, as far as it came."""
    seen: list[str] = []
    timeout = httpx.Timeout(60, read=silence)
    async with client.stream("POST", CHAT, json=hello(stream=True, **fields), timeout=timeout) as answer:
        assert answer.status_code == 200

        async def read() -> None:
            async for line in answer.aiter_lines():
                if line:
                    seen.append(line.removeprefix("data: "))

        reading = asyncio.create_task(read())
        try:
            await asyncio.wait({reading}, timeout=90)
            yield seen
            await reading
        finally:
            reading.cancel()


@pytest.mark.parametrize("token_ms", [0, 2])
@pytest.mark.parametrize("count", [0, 3])
async def test_a_cut_stream_has_its_chunks_and_no_end(count: int, token_ms: float) -> None:
    async with worker(cut_after=count, token_ms=token_ms) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            async with lines(client) as seen:
                # The first chunk only says who speaks.
                assert len(seen) == 1 + count


async def test_a_cut_body() -> None:
    async with worker(cut_after=3) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(CHAT, json=hello())


async def test_a_stream_shorter_than_the_cut_is_sound() -> None:
    async with worker(cut_after=1000) as client, lines(client) as seen:
        assert seen[-1] == "[DONE]"


async def test_a_silent_stream() -> None:
    async with worker(hang_after=2) as client:
        with pytest.raises(httpx.ReadTimeout):
            async with lines(client, silence=1.5) as seen:
                assert len(seen) == 3


async def test_an_error_inside_a_stream() -> None:
    async with worker(error_after=2) as client:
        async with lines(client) as seen:
            error = json.loads(seen[3])["error"]
            assert error["type"] == "server_error"
            assert seen[4] == "[DONE]"
            assert len(seen) == 5
        assert (await client.post(CHAT, json=hello())).status_code == 500


async def test_garbage_inside_a_stream() -> None:
    async with worker(garbage_after=2) as client:
        async with lines(client) as seen:
            json.loads(seen[2])
            with pytest.raises(json.JSONDecodeError):
                json.loads(seen[3])
        with pytest.raises(json.JSONDecodeError):
            (await client.post(CHAT, json=hello())).json()


@pytest.mark.parametrize(("how", "arguments"), [("false", "false"), ("list", '[{"a": 1}]'), ("broken", '{"a": 1')])
async def test_bad_arguments(how: str, arguments: str) -> None:
    async with worker(bad_arguments=how) as client:
        answer = await client.post(CHAT, json=hello('add {"a": 1}', tools=[tool("add")]))
    (call,) = answer.json()["choices"][0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == arguments


async def statuses(seed: int) -> list[int]:
    async with worker(fail_status=500, fault_probability=0.5, seed=seed) as client:
        return [(await client.post(CHAT, json=hello())).status_code for _ in range(24)]


async def test_some_requests_fail_and_the_seed_says_which() -> None:
    first = await statuses(1)
    assert set(first) == {200, 500}
    assert await statuses(1) == first
    assert await statuses(2) != first


async def test_a_script_makes_single_replies_fail() -> None:
    script = Script((ScriptedReply(when="boom", fault=Fault(status=503)),))
    async with worker(script) as client:
        assert (await client.post(CHAT, json=hello("boom"))).status_code == 503
        assert (await client.post(CHAT, json=hello())).status_code == 200


async def test_delays_are_kept_and_tokens_come_one_by_one() -> None:
    async with worker(ttft_ms=60, token_ms=10) as client:
        started, arrived, told = time.monotonic(), list[float](), list[str]()
        # Long enough that a machine which is busy elsewhere for a second does not miss all of it.
        asked = hello("say 120 words", stream=True, stream_options={"include_usage": True})
        async with client.stream("POST", CHAT, json=asked) as answer:
            async for line in answer.aiter_lines():
                if line:
                    arrived.append(time.monotonic() - started)
                    told.append(line.removeprefix("data: "))
        whole = time.monotonic()
        usage = (await client.post(CHAT, json=hello("say 20 words"))).json()["usage"]
        took = time.monotonic() - whole
    assert arrived[0] >= 0.06
    assert arrived[-1] >= 0.06 + 0.01 * (json.loads(told[-2])["usage"]["completion_tokens"] - 1)
    # A busy machine wakes late and then sends what has become due at once.
    assert len({round(each, 3) for each in arrived}) >= 4
    assert took >= 0.06 + 0.01 * (usage["completion_tokens"] - 1)


async def test_who_goes_away_ends_the_work() -> None:
    async with worker(token_ms=5, block_size=1) as client:
        async with client.stream("POST", CHAT, json=hello("say 400 words", stream=True)) as answer:
            async for _ in answer.aiter_lines():
                break
        short = await client.post(CHAT, json=hello("say 400 words", max_tokens=1))
    # What was never generated is not in the cache; the server's end above did not have to wait for it either.
    usage = short.json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1
