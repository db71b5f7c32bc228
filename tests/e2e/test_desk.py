"""Two gateways on one database: they agree who made a response, who holds a conversation, and what is in it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.failing_workers import Worker
from tests.support.ports import free_port
from tests.support.processes import SHEPHERD, process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """A worker that takes its time."""
    made = Worker("--models", "m", "--ttft-ms", "300", "--token-ms", "20")
    yield made
    made.stop()


@contextmanager
def gateway(directory: Path, worker: Worker, lease_secs: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A gateway on the database in `directory`; its URL and its process."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [SHEPHERD, "serve", "--port", str(port), "--worker-urls", worker.url]
    command += ["--database-url", f"sqlite:///{directory}/history.db", "--data-dir", str(directory)]
    config = directory / "shepherd.yaml"
    config.write_text(f"history:\n  lease_secs: {lease_secs}\n  poll_secs: 0.2\n")
    with process([*command, "--config", config], ready=f"{url}/readiness", log=directory / "log") as running:
        yield url, running


def create(url: str, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {} if key is None else {"idempotency-key": key}
    asked = {"model": "m", "input": "Hello", **body}
    return httpx.post(f"{url}/v1/responses", json=asked, headers=headers, timeout=60, trust_env=False)


def get(url: str, **parameters: str) -> Any:
    return httpx.get(url, params=parameters, timeout=60, trust_env=False).json()


def test_one_key_makes_one_response_wherever_it_is_sent(worker: Worker, tmp_path: Path) -> None:
    first, second = (gateway(tmp_path, worker, lease_secs=60) for _ in range(2))
    with first as (one, _), second as (two, _), ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(create, url, "a key") for url in (one, two) * 4]
        answers = [each.result() for each in sent]
        assert {each.status_code for each in answers} == {200}
        assert len({each.text for each in answers}) == 1
        streams = [pool.submit(create, url, "another", stream=True) for url in (one, two) * 2]
        assert len({each.result().text for each in streams}) == 1
        assert create(two, "a key", input="Goodbye").json()["error"]["code"] == "idempotency_key_reused"
        assert len(get(f"{one}/v1/responses")["data"]) == 2


def test_a_conversation_survives_the_gateway_that_works_on_it(worker: Worker, tmp_path: Path) -> None:
    with gateway(tmp_path, worker, lease_secs=1) as (one, first), gateway(tmp_path, worker, lease_secs=1) as (two, _):
        talk = httpx.post(f"{one}/v1/conversations", json={}, timeout=60, trust_env=False).json()["id"]
        # Nothing is answered before the gateway is gone.
        worker.process.send_signal(signal.SIGSTOP)
        made = create(one, conversation=talk, background=True).json()
        refused = create(two, conversation=talk)
        assert refused.json()["error"]["code"] == "conversation_locked"
        first.kill()
        worker.process.send_signal(signal.SIGCONT)
        with httpx.stream("GET", f"{two}/v1/responses/{made['id']}?stream=true", timeout=60, trust_env=False) as told:
            assert "response.completed" in told.read().decode()
        items = get(f"{two}/v1/conversations/{talk}/items", order="asc")["data"]
        assert [item["role"] for item in items] == ["user", "assistant"]
        assert items[1] == get(f"{two}/v1/responses/{made['id']}")["output"][0]
        assert create(two, conversation=talk).status_code == 200
        assert len(get(f"{two}/v1/conversations/{talk}/items")["data"]) == 4
