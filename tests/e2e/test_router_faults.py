"""Workers that die, freeze, fail and come back, as real processes: who has seen nothing yet never notices."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from openai import AsyncOpenAI, InternalServerError, OpenAI

from tests.support.failing_workers import EAGER, PATIENCE_SECS, WATCHFUL, Worker, ask, ask_all, fate
from tests.support.ports import free_port
from tests.support.processes import SHEPHERD, gateway, process, wait_until_ok
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

# One that has said nothing yet, whenever the test comes to what it does to it.
SILENT = ("--ttft-ms", "600000")


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    made: list[Worker] = []
    yield made
    for worker in made:
        worker.stop()


def inflight(url: str, worker: Worker) -> int:
    return httpx.get(f"{url}/workers/{worker.url}", timeout=PATIENCE_SECS).json()["inflight"]


async def until_busy(url: str, worker: Worker, turns: int) -> None:
    async with asyncio.timeout(PATIENCE_SECS):
        while await asyncio.to_thread(inflight, url, worker) < turns:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


def test_a_worker_is_killed_under_two_hundred_requests(tmp_path: Path, workers: list[Worker]) -> None:
    # The one that dies takes 10 s for an answer: turns that began are not through.
    workers += [Worker("--token-ms", pace, "--ttft-ms", "300") for pace in ("50", "10", "10")]
    with gateway(tmp_path, "--worker-urls", *(each.url for each in workers), *EAGER, "--policy", "least_load") as url:
        begun: list[str] = []

        async def kill() -> None:
            await until_busy(url, workers[0], 60)
            # More than the others can have.
            await eventually(lambda: len(begun) > 150, PATIENCE_SECS)
            workers[0].kill()

        texts = [f"request {number} of two hundred" for number in range(200)]
        fates = [fate(each) for each in asyncio.run(ask_all(url, texts, kill(), tokens=200, begun=begun))]
        assert "failed early" not in fates
        # Those that had begun at the dead worker, and nobody else.
        assert 0 < fates.count("failed") <= 70
        again = [fate(each) for each in asyncio.run(ask_all(url, texts[:20], asyncio.sleep(0)))]
        assert again == ["completed"] * 20


def test_turns_that_have_heard_nothing_move_when_their_worker_is_killed(tmp_path: Path, workers: list[Worker]) -> None:
    workers += [Worker(*SILENT), Worker("--ttft-ms", "2000")]
    with gateway(tmp_path, "--worker-urls", *(each.url for each in workers), *EAGER) as url:

        async def kill() -> None:
            await until_busy(url, workers[0], 10)
            workers[0].kill()

        texts = [f"request {number}" for number in range(60)]
        streams = asyncio.run(ask_all(url, texts, kill()))
        assert [fate(each) for each in streams] == ["completed"] * 60


def test_who_waits_for_one_answer_never_notices_that_a_worker_is_killed(tmp_path: Path, workers: list[Worker]) -> None:
    """However much of it there was: nobody had seen it."""
    workers += [Worker("--token-ms", "10") for _ in range(3)]
    with gateway(tmp_path, "--worker-urls", *(each.url for each in workers), *EAGER, "--policy", "least_load") as url:

        async def kill() -> None:
            await until_busy(url, workers[0], 10)
            await asyncio.sleep(0.5)
            workers[0].kill()

        async def ask_sdk() -> list[str | None]:
            client = AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE_SECS)
            given = {"ignore_eos": True}
            async with client, asyncio.TaskGroup() as group:
                killing = group.create_task(kill())
                asked = [
                    group.create_task(
                        client.responses.create(
                            model="simulated", input=f"request {number}", max_output_tokens=200, extra_body=given
                        )
                    )
                    for number in range(60)
                ]
            assert killing.done()
            return [each.result().status for each in asked]

        # 200 tokens are as many as were asked for.
        assert asyncio.run(ask_sdk()) == ["incomplete"] * 60


def test_all_are_frozen_for_a_moment_and_whoever_heard_nothing_waits(tmp_path: Path, workers: list[Worker]) -> None:
    workers += [Worker("--ttft-ms", "4000", "--token-ms", "1") for _ in range(2)]
    # They are looked at again within a second, and waited for as long as this.
    flags = [*WATCHFUL, "--health-check-interval-secs", "10", "--health-failure-threshold", "1"]
    with gateway(tmp_path, "--worker-urls", *(each.url for each in workers), *flags) as url:

        async def freeze() -> None:
            await until_busy(url, workers[0], 5)
            for worker in workers:
                worker.process.send_signal(signal.SIGSTOP)
            for worker in workers:
                await asyncio.to_thread(wait_for_health, url, worker, healthy=False)
            for worker in workers:
                worker.process.send_signal(signal.SIGCONT)

        streams = asyncio.run(ask_all(url, [f"request {number}" for number in range(20)], freeze()))
        assert [fate(each) for each in streams] == ["completed"] * 20


def test_turns_that_had_begun_at_a_frozen_worker_are_ended(tmp_path: Path, workers: list[Worker]) -> None:
    workers += [Worker("--token-ms", pace) for pace in ("100", "20")]
    flags = [*WATCHFUL, "--policy", "least_load"]
    with gateway(tmp_path, "--worker-urls", *(each.url for each in workers), *flags) as url:
        begun: list[str] = []

        async def freeze() -> None:
            await eventually(lambda: len(begun) == 20, PATIENCE_SECS)
            workers[0].process.send_signal(signal.SIGSTOP)

        texts = [f"request {number}" for number in range(20)]
        fates = [fate(each) for each in asyncio.run(ask_all(url, texts, freeze(), tokens=200, begun=begun))]
        assert "failed early" not in fates
        assert 0 < fates.count("failed") <= 10


def test_a_frozen_worker_is_left_and_taken_back(tmp_path: Path, workers: list[Worker]) -> None:
    workers += [Worker(*SILENT), Worker("--ttft-ms", "1000", "--token-ms", "1")]
    with gateway(tmp_path, "--worker-urls", *(each.url for each in workers), *WATCHFUL) as url:

        async def freeze() -> None:
            await until_busy(url, workers[0], 3)
            workers[0].process.send_signal(signal.SIGSTOP)

        streams = asyncio.run(ask_all(url, [f"request {number}" for number in range(20)], freeze()))
        assert [fate(each) for each in streams] == ["completed"] * 20
        workers[0].process.send_signal(signal.SIGCONT)
        wait_for_health(url, workers[0], healthy=True)


def wait_for_health(url: str, worker: Worker, *, healthy: bool) -> None:
    end = time.monotonic() + PATIENCE_SECS
    while httpx.get(f"{url}/workers/{worker.url}", timeout=PATIENCE_SECS).json()["is_healthy"] is not healthy:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_workers_that_fail_before_they_speak_are_not_noticed(tmp_path: Path, workers: list[Worker]) -> None:
    for fault in (("--fail-status", "500"), ("--fail-status", "503"), ("--cut-after", "0"), ()):
        workers.append(Worker(*fault))
    flags = [*EAGER, "--policy", "round_robin"]
    with gateway(tmp_path, "--worker-urls", *(each.url for each in workers), *flags) as url:
        streams = asyncio.run(ask_all(url, [f"request {number}" for number in range(40)], asyncio.sleep(0)))
        assert [fate(each) for each in streams] == ["completed"] * 40


def test_all_are_gone_and_one_comes_back(tmp_path: Path, workers: list[Worker]) -> None:
    workers += [Worker(), Worker()]
    with gateway(tmp_path, "--worker-urls", *(each.url for each in workers), *EAGER) as url:
        for worker in workers:
            worker.kill()
        for worker in workers:
            wait_for_health(url, worker, healthy=False)
        refused = post(url)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert httpx.get(f"{url}/readiness", timeout=PATIENCE_SECS).status_code == 503
        workers[1].start()
        wait_for_health(url, workers[1], healthy=True)
        assert post(url).status_code == 200


def post(url: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/responses", json={"model": "simulated", "input": "x"}, timeout=PATIENCE_SECS)


def test_all_are_killed_at_work_and_used_as_soon_as_they_are_back(tmp_path: Path, workers: list[Worker]) -> None:
    workers += [Worker("--token-ms", "10"), Worker("--token-ms", "10")]
    # What they failed when they were killed would keep turns away for longer than anybody waits.
    flags = [*EAGER, "--policy", "least_load", "--cb-failure-threshold", "5", "--cb-timeout-duration-secs", "3600"]
    with gateway(tmp_path, "--worker-urls", *(each.url for each in workers), *flags) as url:
        begun: list[str] = []

        async def kill() -> None:
            await eventually(lambda: len(begun) == 40, PATIENCE_SECS)
            for worker in workers:
                worker.kill()

        texts = [f"request {number}" for number in range(40)]
        assert "failed" in [fate(each) for each in asyncio.run(ask_all(url, texts, kill(), tokens=1000, begun=begun))]
        assert [each["circuit"] for each in seen(url)] == ["open", "open"]
        for worker in workers:
            wait_for_health(url, worker, healthy=False)

        client = OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)
        with pytest.raises(InternalServerError) as refused:
            client.responses.create(model="simulated", input="x")
        assert refused.value.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) > 0

        for worker in workers:
            worker.start()
        # A client that does as it is told needs nothing else.
        patient = client.with_options(max_retries=20)
        assert patient.responses.create(model="simulated", input="x").status == "completed"
        for worker in workers:
            wait_for_health(url, worker, healthy=True)
        streams = asyncio.run(ask_all(url, texts, asyncio.sleep(0)))
        assert [fate(each) for each in streams] == ["completed"] * 40


def test_a_worker_that_flaps_costs_nobody_anything(tmp_path: Path, workers: list[Worker]) -> None:
    workers += [Worker("--ttft-ms", "20"), Worker("--ttft-ms", "20")]
    with gateway(tmp_path, "--worker-urls", *(each.url for each in workers), *EAGER) as url:
        fates: list[str] = []

        async def flap() -> None:
            for _ in range(2):
                for act in (workers[0].kill, workers[0].start):
                    await asyncio.to_thread(act)
                    before = len(fates)
                    await eventually(lambda before=before: len(fates) > before + 2, PATIENCE_SECS)

        async def traffic() -> None:
            timeout = aiohttp.ClientTimeout(total=PATIENCE_SECS)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                flapping = asyncio.create_task(flap())
                while not flapping.done():
                    fates.append(fate(await ask(session, url, f"request {len(fates)}")))
                await flapping

        asyncio.run(traffic())
        # One that was being written when its worker was killed may have failed.
        assert fates.count("failed") <= 2
        assert "failed early" not in fates
        assert len(fates) > 10


def test_a_worker_that_starts_late_is_waited_for(tmp_path: Path, workers: list[Worker]) -> None:
    port = free_port()
    late = f"http://127.0.0.1:{port}"
    with gateway_at_once(tmp_path, "--worker-urls", late, *EAGER) as url:
        assert post(url).status_code == 503
        with process([SHEPHERD, "simulate", "--port", str(port)], ready=f"{late}/health"):
            end = time.monotonic() + PATIENCE_SECS
            while post(url).status_code != 200:
                assert time.monotonic() < end
                time.sleep(0.1)


class gateway_at_once:  # noqa: N801 - reads as the function it stands for
    """A gateway that is not waited for until it has a worker."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self._directory, self._flags, self._stack = directory, flags, ExitStack()

    def __enter__(self) -> str:
        url = f"http://127.0.0.1:{(port := free_port())}"
        words = [SHEPHERD, "serve", "--port", str(port), "--data-dir", self._directory, *self._flags]
        started = self._stack.enter_context(process(words))
        wait_until_ok(f"{url}/health", started)
        return url

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def seen(url: str) -> list[dict[str, Any]]:
    return httpx.get(f"{url}/workers", timeout=PATIENCE_SECS).json()["workers"]


def test_what_engines_tell_is_what_they_do(tmp_path: Path, workers: list[Worker]) -> None:
    events = [f"tcp://127.0.0.1:{free_port()}" for _ in range(2)]
    replays = [f"tcp://127.0.0.1:{free_port()}" for _ in range(2)]
    fast = ("--engine", "batch", "--prompt-token-us", "1", "--step-ms", "1")
    for stream, replay in zip(events, replays, strict=True):
        workers.append(Worker(*fast, "--kv-events", stream, "--kv-replay", replay))
    metrics = free_port()
    flags = ["--router-tokens", "engine", "--prometheus-port", str(metrics), *EAGER]
    flags += ["--kv-events", *map(",".join, zip(events, replays, strict=True))]
    with gateway(tmp_path, "--worker-urls", *(each.url for each in workers), *flags) as url:
        text = "sheep on the hill " * 2000

        def asked(more: str) -> int:
            body = {"model": "simulated", "input": text + more, "store": False}
            told = httpx.post(f"{url}/v1/responses", json=body, timeout=PATIENCE_SECS).json()["usage"]
            return told["input_tokens_details"]["cached_tokens"]

        assert asked("") == 0
        end = time.monotonic() + PATIENCE_SECS
        # All of it, in granules of 64 tokens: it need not be told in one go.
        while not any(each["cache_events"] and each["cached_blocks"] * 64 > 8000 for each in seen(url)):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert asked(" and more") > 8000
        assert asked(" and more and more") > 8000
        counted = httpx.get(f"http://127.0.0.1:{metrics}/metrics", timeout=PATIENCE_SECS).text
        told = {
            kind: float(line.rsplit(" ", 1)[1])
            for kind in ("predicted", "actual")
            for line in counted.splitlines()
            if line.startswith("shepherd_router_cached_tokens_total") and f'kind="{kind}"' in line
        }
        # Blocks of 16 tokens there, granules of 64 here: never more, and hardly less.
        assert told["actual"] - 3 * 64 <= told["predicted"] <= told["actual"]
        assert told["predicted"] > 16_000
