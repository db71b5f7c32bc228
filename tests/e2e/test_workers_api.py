"""The fleet changed from outside, with real processes."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.support.processes import SHEPHERD, gateway, simulator

pytestmark = pytest.mark.slow


def ask(url: str, headers: dict[str, str] | None = None) -> httpx.Response:
    body = {"model": "simulated", "input": "Hello there"}
    return httpx.post(f"{url}/v1/responses", json=body, headers=headers, timeout=30)


def changed(answer: httpx.Response) -> str:
    """The worker's status after a change that was accepted."""
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert told["status"] == "accepted"
    return httpx.get(f"{answer.request.url.copy_with(path='/workers/')}{told['worker_id']}").json()["status"]


def wait_until_ready(worker: str, status: str = "ready") -> None:
    end = time.monotonic() + 60
    while (told := httpx.get(worker).json())["status"] != status or not told["is_healthy"]:
        assert time.monotonic() < end, told
        time.sleep(0.05)


def shepherd(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SHEPHERD, *words], capture_output=True, text=True, timeout=60, check=False)


def test_workers_are_added_drained_and_removed(tmp_path: Path) -> None:
    with simulator() as first, simulator() as second, gateway(tmp_path, "--worker-urls", first) as url:
        added = httpx.post(f"{url}/workers", json={"url": second, "labels": {"rack": "7"}}, timeout=30)
        assert added.status_code == 202, added.text
        assert added.headers["location"] == added.json()["location"] == f"/workers/{added.json()['worker_id']}"
        wait_until_ready(url + added.json()["location"])
        assert httpx.post(f"{url}/workers", json={"url": second}, timeout=30).status_code == 409
        assert httpx.post(f"{url}/workers", json={"url": "ftp://x"}, timeout=30).json()["error"]["param"] == "url"
        for more in ({"url": f"{second}?x=1"}, {"kv_events": "tcp://*:5557"}, {"api_key": "a b"}):
            refused = httpx.post(f"{url}/workers", json={"url": "http://127.0.0.1:1", **more}, timeout=30)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, next(iter(more)))
        refused = httpx.patch(f"{url}/workers/{first}", json={"kv_events": "nowhere"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "kv_events")
        listed = httpx.get(f"{url}/workers").json()
        assert [worker["url"] for worker in listed["workers"]] == [first, second]
        assert listed["total"] == listed["stats"]["regular_count"] == 2
        assert httpx.get(f"{url}/workers", params={"model": "nobody's"}).json()["total"] == 0

        one = httpx.get(f"{url}{added.json()['location']}").json()
        assert one == httpx.get(f"{url}/workers/{second}").json()
        assert one == {
            **one, "id": added.json()["worker_id"], "url": second, "model_id": "simulated", "worker_type": "regular",
            "connection_mode": "http", "labels": {"rack": "7"}, "is_healthy": True, "status": "ready", "load": 0,
        }  # fmt: skip
        assert {"id": "simulated"} in one["models"]
        assert changed(httpx.patch(f"{url}/workers/{first}", json={"draining": True})) == "draining"
        assert ask(url).status_code == 200
        assert ask(url, {"x-shepherd-target-worker": first}).status_code == 503
        assert ask(url, {"x-shepherd-target-worker": one["id"]}).status_code == 200
        assert ask(url, {"x-shepherd-target-worker": "nobody"}).status_code == 400

        assert httpx.delete(f"{url}/workers/{one['id']}").status_code == 202
        assert httpx.get(f"{url}/workers/{one['id']}").status_code == 404
        assert ask(url).status_code == 503
        assert changed(httpx.put(f"{url}/workers/{first}", json={"url": first, "labels": {"a": "b"}})) == "ready"
        assert httpx.get(f"{url}/workers/{first}").json()["labels"] == {"a": "b"}
        for body, param in (({"url": second}, "url"), ({"url": first, "priority": 7}, "priority")):
            refused = httpx.put(f"{url}/workers/{first}", json=body)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
        assert ask(url).status_code == 200


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/input_tokens", "/v1/responses/compact"])
def test_a_target_that_cannot_be_is_refused_before_anything_is_said(tmp_path: Path, path: str) -> None:
    with (
        simulator() as first,
        simulator() as drained,
        simulator("--models", "other") as other,
        gateway(tmp_path, "--worker-urls", first, drained, other) as url,
    ):
        body = {"model": "simulated", "input": "Hello there"}
        body |= {"stream": True} if path == "/v1/responses" else {}

        def told(target: str) -> tuple[int, str | None, str | None]:
            headers = {"x-shepherd-target-worker": target}
            answer = httpx.post(f"{url}{path}", json=body, headers=headers, timeout=30)
            error = answer.json()["error"] if answer.is_error else {}
            return answer.status_code, error.get("param"), answer.headers.get("retry-after")

        httpx.patch(f"{url}/workers/{drained}", json={"draining": True})
        assert told(first) == (200, None, None)
        assert told("nobody") == (400, "x-shepherd-target-worker", None)
        assert told(other) == (400, "x-shepherd-target-worker", None)
        assert told(drained) == (503, "x-shepherd-target-worker", "2")


def test_when_to_come_back_is_said_by_whoever_knows(tmp_path: Path) -> None:
    flags = ("--cb-failure-threshold", "1", "--retry-max-retries", "0")
    with (
        simulator("--models", "limited", "--fail-status", "429", "--retry-after-secs", "7") as limited,
        simulator("--models", "broken", "--fail-status", "500") as broken,
        gateway(tmp_path, "--worker-urls", limited, broken, *flags) as url,
    ):

        def ask_for(model: str) -> httpx.Response:
            return httpx.post(f"{url}/v1/responses", json={"model": model, "input": "x"}, timeout=30)

        answer = ask_for("limited")
        assert (answer.status_code, answer.headers.get("retry-after")) == (429, "7")
        assert ask_for("broken").status_code == 502
        # Its circuit is open now.
        answer = ask_for("broken")
        assert (answer.status_code, answer.headers.get("retry-after")) == (503, "2")


def test_the_command_line_does_the_same(tmp_path: Path) -> None:
    with simulator() as first, simulator() as second, gateway(tmp_path, "--worker-urls", first) as url:
        assert shepherd("worker", "add", second, "--url", url).returncode == 0
        listed = shepherd("worker", "list", "--url", url).stdout
        assert listed.count("status=") == 2
        assert "status=draining" in shepherd("worker", "drain", second, "--url", url).stdout
        wait_until_ready(f"{url}/workers/{second}", status="draining")
        assert "status=ready" in shepherd("worker", "undrain", second, "--url", url).stdout
        assert shepherd("worker", "remove", second, "--url", url).returncode == 0
        again = shepherd("worker", "remove", second, "--url", url)
        assert again.returncode == 1
        assert "not found" in again.stderr
        assert "policy=least_load" in shepherd("worker", "policy", "least_load", "--url", url).stdout
        assert (
            '"simulated":"random"'
            in shepherd("worker", "policy", "random", "--model", "simulated", "--url", url).stdout
        )
        assert shepherd("worker", "policy", "nonsense", "--url", url).returncode == 1
        assert shepherd("worker", "policy", "--unset", "--url", url).returncode == 2
        assert "models={}" in shepherd("worker", "policy", "--unset", "--model", "simulated", "--url", url).stdout
        assert ask(url).status_code == 200


def wait_for_words(words: str, url: str) -> None:
    end = time.monotonic() + 60
    while words not in (told := shepherd("worker", "list", "--url", url).stdout):
        assert time.monotonic() < end, told


def test_a_worker_that_wants_a_key_is_given_one(tmp_path: Path) -> None:
    with (
        simulator("--models", "other") as other,
        simulator("--api-key", "secret") as worker,
        gateway(tmp_path, "--worker-urls", other) as url,
    ):
        # It does not even tell which models it has.
        assert "status=pending" in shepherd("worker", "add", worker, "--worker-key", "wrong", "--url", url).stdout
        wait_for_words("reason=The worker answers GET /v1/models with status 401", url)
        assert shepherd("worker", "update", worker, "--worker-key", "secret", "--url", url).returncode == 0
        wait_until_ready(f"{url}/workers/{worker}")
        assert "reason=" not in shepherd("worker", "list", "--url", url).stdout
        assert ask(url).status_code == 200
        refused = shepherd("worker", "update", worker, "--kv-events", "nowhere", "--url", url)
        assert refused.returncode == 1
        assert "nowhere" in refused.stderr


def test_the_fleet_can_be_closed(tmp_path: Path) -> None:
    with simulator() as worker, gateway(tmp_path, "--worker-urls", worker, "--no-workers-api") as url:
        assert httpx.get(f"{url}/workers").status_code == 404
        assert ask(url).status_code == 200
