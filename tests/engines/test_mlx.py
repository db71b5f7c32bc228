"""A real model server behind a real gateway process: the tiny model says nonsense, everything around it is true."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.ports import free_port
from tests.support.processes import gateway, process

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / ".venv-engines" / "bin" / "python"

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The engine with a model made on the spot: its URL and the model's name."""
    home = tmp_path_factory.mktemp("engine")
    model, cache, log = home / "model", home / "cache", home / "log"
    subprocess.run([ENGINE, ROOT / "tests/engines/make_tiny_model.py", model], check=True)
    # It looks for more models in the hub's cache, and breaks where there is none.
    cache.mkdir()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [ENGINE, "-m", "mlx_lm", "server", "--model", model, "--host", "127.0.0.1", "--port", str(port)]
    with process(command, ready=f"{url}/v1/models", env=environment, log=log):
        yield url, str(model)


@pytest.fixture(scope="module")
def client(engine: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """The openai SDK in front of a gateway in front of the engine."""
    with (
        gateway(tmp_path_factory.mktemp("gateway"), "--worker-urls", engine[0]) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made,
    ):
        yield made


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
