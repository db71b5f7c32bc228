"""A real model server behind a real gateway process: the tiny model says nonsense, everything around it is true."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / ".venv-engines" / "bin" / "python"
GATEWAY = ROOT / ".venv" / "bin" / "shepherd"

pytestmark = pytest.mark.engines


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"{process.args} ended"
        try:
            if httpx.get(url, timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"{url} did not come up")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    model = tmp_path_factory.mktemp("model")
    subprocess.run([ENGINE, ROOT / "tests/engines/make_tiny_model.py", model], check=True)
    port = free_port()
    command = [ENGINE, "-m", "mlx_lm", "server", "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}", str(model)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def client(engine: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    port = free_port()
    database = tmp_path_factory.mktemp("gateway") / "history.db"
    command = [GATEWAY, "serve", "--worker-urls", engine[0], "--port", str(port)]
    process = subprocess.Popen([*command, "--database-url", f"sqlite:///{database}"], cwd=database.parent)
    try:
        wait_for(f"http://127.0.0.1:{port}/readiness", process)
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as made:
            yield made
    finally:
        process.terminate()
        process.wait(10)


def test_a_whole_answer(client: openai.OpenAI, engine: tuple[str, str]) -> None:
    response = client.responses.create(model=engine[1], input="Hello there", max_output_tokens=12, temperature=0)
    assert response.status in {"completed", "incomplete"}
    assert response.output_text
    assert response.usage is not None
    assert response.usage.input_tokens > 0
    assert 0 < response.usage.output_tokens <= 12


def test_a_stream_and_its_continuation(client: openai.OpenAI, engine: tuple[str, str]) -> None:
    with client.responses.stream(model=engine[1], input="Hello there", max_output_tokens=12, temperature=0) as stream:
        events = list(stream)
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = events[-1].response
    assert deltas == final.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    following = client.responses.create(
        model=engine[1], input="And now?", previous_response_id=final.id, max_output_tokens=8, temperature=0
    )
    assert following.usage.input_tokens > final.usage.input_tokens
