"""Real processes that break while a response is being made: the client always learns how it ended."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.dialects.openai_responses.check import check_sse
from tests.e2e.crashing import effects
from tests.support.demo import demo_mcp_server
from tests.support.ports import free_port
from tests.support.processes import SHEPHERD, gateway, process, simulator

pytestmark = pytest.mark.slow


def events(body: bytes) -> list[dict[str, object]]:
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ") and line != b"data: [DONE]"]
    return [json.loads(line) for line in lines]


def post(url: str, **fields: object) -> httpx.Response:
    body = {"model": "simulated", "input": "Hello there, this is a text of some words", **fields}
    return httpx.post(f"{url}/v1/responses", json=body, timeout=120)


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    with demo_mcp_server() as url:
        yield url


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Tools, one of which takes as long as it is told to."""
    with effects(tmp_path_factory.mktemp("tools") / "ledger") as url:
        yield url


def waiting_tool(server: str, gate: Path) -> dict[str, object]:
    return {
        "input": f"wait {json.dumps({'gate': str(gate)})}",
        "tools": [{"type": "mcp", "server_label": "patient", "server_url": server, "require_approval": "never"}],
    }


def wait_for(url: str, response_id: str, status: str, seconds: float = 60) -> dict[str, object]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = httpx.get(f"{url}/v1/responses/{response_id}", timeout=30)
        if answer.status_code == 200 and answer.json()["status"] == status:
            return answer.json()
        time.sleep(0.05)
    raise AssertionError(f"{response_id} did not become {status}: {answer.text}")


@pytest.mark.parametrize(
    "last_seen", ["response.created", "response.mcp_list_tools.completed", "response.mcp_call.in_progress"]
)
def test_a_stored_run_outlives_its_client(tmp_path: Path, patient: str, last_seen: str) -> None:
    gate = tmp_path / "gate"
    with simulator() as worker, gateway(tmp_path, "--worker-urls", worker) as url:
        body = {"model": "simulated", "stream": True, **waiting_tool(patient, gate)}
        response_id = None
        with httpx.stream("POST", f"{url}/v1/responses", json=body, timeout=30) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    event = json.loads(line[6:])
                    response_id = response_id or event["response"]["id"]
                    if event["type"] == last_seen:
                        break
        assert response_id is not None
        assert httpx.get(f"{url}/v1/responses/{response_id}", timeout=30).json()["status"] == "in_progress"
        gate.touch()
        finished = wait_for(url, response_id, "completed")
        assert [item["type"] for item in finished["output"]] == ["mcp_list_tools", "mcp_call", "message"]
        following = post(url, input="And then?", previous_response_id=response_id)
        assert following.json()["status"] == "completed"


@pytest.mark.parametrize("stream", [True, False])
def test_a_worker_that_answers_500(tmp_path: Path, stream: bool) -> None:
    with simulator("--fail-status", "500") as worker, gateway(tmp_path, "--worker-urls", worker) as url:
        answer = post(url, stream=stream)
        if stream:
            assert check_sse(answer.content) == []
            last = events(answer.content)[-1]
            assert last["type"] == "response.failed"
            assert last["response"]["error"]["message"]
        else:
            assert answer.status_code == 502
            assert answer.json()["error"]["code"]


def test_a_stream_that_is_cut_ends_legally(tmp_path: Path) -> None:
    with simulator("--cut-after", "3") as worker, gateway(tmp_path, "--worker-urls", worker) as url:
        answer = post(url, stream=True)
        assert check_sse(answer.content) == []
        last = events(answer.content)[-1]
        assert last["type"] == "response.failed"
        stored = httpx.get(f"{url}/v1/responses/{last['response']['id']}").json()
        assert stored["status"] == "failed"
        assert stored["error"] == last["response"]["error"]


def test_a_worker_that_hangs_times_out(tmp_path: Path) -> None:
    with (
        simulator("--hang") as worker,
        gateway(
            tmp_path, "--worker-urls", worker, "--request-timeout-secs", "1", "--health-check-timeout-secs", "1"
        ) as url,
    ):
        assert post(url).status_code == 504


def test_a_locked_database_is_an_error_and_nothing_is_half_written(tmp_path: Path) -> None:
    with simulator() as worker, gateway(tmp_path, "--worker-urls", worker) as url:
        first = post(url).json()
        lock = sqlite3.connect(tmp_path / "history.db", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        try:
            whole = post(url, previous_response_id=first["id"])
            streamed = post(url, stream=True)
        finally:
            lock.execute("ROLLBACK")
            lock.close()
        assert whole.status_code == 503
        assert whole.json()["error"]["code"] == "history_unavailable"
        # What cannot be noted down is not begun, so a stream is refused before it is one.
        assert streamed.status_code == 503
        assert streamed.json()["error"]["code"] == "history_unavailable"
        assert post(url, previous_response_id=first["id"]).json()["status"] == "completed"


@pytest.mark.parametrize("sealed", [True, False])
def test_store_false_leaves_nothing_on_disk(tmp_path: Path, sealed: bool) -> None:
    """Nothing of it is in the database, its log or any other file; unsealed, what is stored is there to be found."""
    needle, kept = b"a-needle-in-a-haystack", b"something-to-remember"
    env = {**os.environ, "SHEPHERD__HISTORY__ENCRYPT": str(sealed).lower()}
    with simulator() as worker, gateway(tmp_path, "--worker-urls", worker, env=env) as url:
        assert post(url, input=f"Please repeat {needle.decode()}", store=False).status_code == 200
        assert post(url, input=f"Please repeat {needle.decode()}", store=False, stream=True).status_code == 200
        assert post(url, input=kept.decode()).status_code == 200
        assert not found(tmp_path, needle)
        assert bool(found(tmp_path, kept)) is not sealed
    assert not found(tmp_path, needle)
    assert bool(found(tmp_path, kept)) is not sealed


def test_a_dead_server_holds_no_conversation(tmp_path: Path) -> None:
    """Not for longer than its lease; and what it was told and did not store is nowhere."""
    env = {**os.environ, "SHEPHERD__HISTORY__LEASE_SECS": "2"}
    database = ["--database-url", f"sqlite:///{tmp_path}/history.db"]
    asked = {"model": "simulated", "input": "Say 2000 words, not a-needle-in-a-haystack.", "store": False}
    with simulator("--token-ms", "10") as worker:
        url = f"http://127.0.0.1:{(port := free_port())}"
        command = [SHEPHERD, "serve", "--port", str(port), "--worker-urls", worker, *database]
        with process(command, ready=f"{url}/readiness", cwd=tmp_path, env=env, log=tmp_path / "first.log") as dying:
            conversation = httpx.post(f"{url}/v1/conversations", json={}).json()["id"]
            asked["conversation"] = conversation
            with httpx.stream("POST", f"{url}/v1/responses", json={**asked, "stream": True}, timeout=30) as answer:
                lines = answer.iter_lines()
                assert next(lines) == "event: response.created"
                refused = post(url, conversation=conversation)
                assert (refused.status_code, refused.json()["error"]["code"]) == (400, "conversation_locked")
                dying.kill()
                dying.wait()
        with gateway(tmp_path, "--worker-urls", worker, env=env) as url:
            end = time.monotonic() + 60
            while (again := post(url, conversation=conversation, store=False)).status_code != 200:
                assert again.json()["error"]["code"] == "conversation_locked"
                assert time.monotonic() < end
                time.sleep(0.2)
            assert not found(tmp_path, b"a-needle-in-a-haystack")


def test_arguments_and_tokens_are_not_logged(tmp_path: Path, demo: str) -> None:
    """Not even where everything is: the MCP SDK logs whole messages at that level."""
    argument, token = b"a-needle-in-an-argument", b"a-needle-in-a-token"
    tool = {"type": "mcp", "server_label": "demo", "server_url": demo, "require_approval": "never"}
    with simulator() as worker, gateway(tmp_path, "--worker-urls", worker, "--log-level", "debug") as url:
        text = f'search_notes {{"query": "{argument.decode()}"}}'
        answer = post(url, input=text, tools=[{**tool, "authorization": token.decode()}])
    assert [item["status"] for item in answer.json()["output"] if item["type"] == "mcp_call"] == ["completed"]
    logged = (tmp_path / "gateway.log").read_bytes()
    assert b"DEBUG" in logged
    assert argument not in logged
    assert token not in logged


def found(directory: Path, needle: bytes) -> list[Path]:
    """The files below `directory` that have `needle` in them."""
    return [path for path in directory.rglob("*") if path.is_file() and needle in path.read_bytes()]


# Either there is far more time than the answer takes, or far less.
@pytest.mark.parametrize(
    ("patience", "words", "ends"), [("60", 60, "response.completed"), ("0.2", 1000, "response.failed")]
)
def test_a_server_that_is_told_to_stop_ends_its_streams_legally(
    tmp_path: Path, patience: str, words: int, ends: str
) -> None:
    env = {**os.environ, "SHEPHERD__RESPONSES__DRAIN_SECS": patience}
    url = f"http://127.0.0.1:{(port := free_port())}"
    with simulator("--token-ms", "30") as worker:
        flags = ["--worker-urls", worker, "--port", str(port), "--data-dir", str(tmp_path)]
        with process([SHEPHERD, "serve", *flags], ready=f"{url}/readiness", env=env) as server:
            body = {"model": "simulated", "input": " ".join(["word"] * words), "stream": True}
            with httpx.stream("POST", f"{url}/v1/responses", json=body, timeout=30) as answer:
                lines = answer.iter_lines()
                told = [next(lines) for _ in range(30)]
                server.terminate()
                told += list(lines)
            assert server.wait(60) == 0
    content = "\n".join([*told, ""]).encode()
    assert check_sse(content) == []
    last = events(content)[-1]
    assert last["type"] == ends
    if ends == "response.failed":
        assert last["response"]["error"]["code"] == "server_shutting_down"


def test_all_workers_gone_and_back(tmp_path: Path) -> None:
    flags = ["--health-check-interval-secs", "1", "--health-failure-threshold", "1", "--health-success-threshold", "1"]
    port = str(free_port())
    worker = [SHEPHERD, "simulate", "--port", port]
    ready = f"http://127.0.0.1:{port}/health"
    target = f"http://127.0.0.1:{port}"
    with process(worker, ready=ready) as first, gateway(tmp_path, "--worker-urls", target, *flags) as url:
        assert post(url).status_code == 200
        first.kill()
        first.wait()
        gone = post(url)
        assert gone.status_code in {502, 503}
        assert gone.json()["error"]["code"]
        with process(worker, ready=ready):
            end = time.monotonic() + 60
            while post(url).status_code != 200:
                assert time.monotonic() < end, "the worker was not taken back"
                time.sleep(0.1)


@pytest.mark.parametrize(
    ("content", "status", "param"),
    [
        (b"{", 400, None),
        (b"[]", 400, None),
        (b'{"model": 1, "input": "x"}', 400, "model"),
        (
            b'{"model": "simulated", "input": [{"type": "message", "role": "user", "content": 5}]}',
            400,
            "input[0].content",
        ),
        (b'{"model": "simulated", "input": "x", "tools": [{"type": "mcp"}]}', 400, "tools[0].server_label"),
        (b'{"model": "simulated", "input": "x", "surprise": 1}', 400, "surprise"),
        (b'{"model": "simulated", "input": "' + b"x" * 70_000 + b'"}', 413, None),
    ],
)
def test_garbage_is_refused_with_a_reason(small_gateway: str, content: bytes, status: int, param: str | None) -> None:
    answer = httpx.post(f"{small_gateway}/v1/responses", content=content, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert error["message"]
    assert error["param"] == param


@pytest.fixture(scope="module")
def small_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("small")
    with simulator() as worker, gateway(directory, "--worker-urls", worker, "--max-payload-size", "65536") as url:
        yield url
