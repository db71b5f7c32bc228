"""Somebody's long prompt does not keep others waiting, with real processes."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from openai.types.responses import Response

from tests.support.ports import free_port
from tests.support.processes import gateway, simulator

pytestmark = pytest.mark.slow

# Some 60,000 tokens, for which the simulated engine takes about seven seconds.
LONG = " ".join(f"line {number} of a long report." for number in range(8_500))


def asked(client: OpenAI, text: str) -> tuple[float, Response]:
    """When the answer began, and what it was."""
    began = 0.0
    with client.responses.stream(model="simulated", input=text) as stream:
        for event in stream:
            if event.type == "response.output_text.delta" and not began:
                began = time.monotonic()
        return began, stream.get_final_response()


def await_view(url: str, name: str, number: int) -> None:
    """Return once the gateway sees so many of those turns at the worker."""
    end = time.monotonic() + 60
    while httpx.get(f"{url}/workers", timeout=60).json()["workers"][0][name] != number:
        assert time.monotonic() < end
        time.sleep(0.05)


def await_metrics(url: str, worker: str) -> None:
    """Return once the gateway has heard of the engine itself how busy it is: of a turn that did not come from there."""
    body = {"model": "simulated", "messages": [{"role": "user", "content": "Say 2000 words."}], "stream": True}
    with httpx.stream("POST", f"{worker}/v1/chat/completions", json=body, timeout=60):
        await_view(url, "others", 1)
    await_view(url, "others", 0)


@pytest.mark.parametrize("in_parts", [True, False])
def test_short_prompts_are_read_between_the_parts_of_a_long_one(tmp_path: Path, in_parts: bool) -> None:
    env = os.environ if in_parts else {**os.environ, "SHEPHERD__ROUTING__PART_SECS": "0"}
    counted = ("--prometheus-port", str(metrics := free_port()))
    with simulator("--engine", "batch") as worker, gateway(tmp_path, "--worker-urls", worker, *counted, env=env) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        # The worker shows that it caches prompts, and in its metrics that it is an engine.
        for _ in range(2):
            asked(client, LONG[:4_000])
        await_metrics(url, worker)
        with ThreadPoolExecutor() as pool:
            long = pool.submit(asked, client, LONG)
            await_view(url, "load", 1)
            short_at, short = asked(client, "How are you?")
            long_at, whole = long.result()
        assert (short_at < long_at) == in_parts
        assert short.status == whole.status == "completed"
        # What the worker had read for this very prompt was not there before it.
        usage = whole.usage
        assert usage is not None
        assert usage.input_tokens > 50_000
        assert usage.input_tokens_details.cached_tokens < 1_100
        # And it has all of it now.
        again = asked(client, LONG)[1].usage
        assert again is not None
        assert again.input_tokens_details.cached_tokens > 50_000
        told = httpx.get(f"{url}/workers", timeout=60).json()["workers"][0]
        assert (told["load"], told["held"]) == (0, 0)
        shown = httpx.get(f"http://127.0.0.1:{metrics}/metrics", timeout=60).text
        assert ('shepherd_router_prompt_parts_total{model="simulated",outcome="read"}' in shown) == in_parts
