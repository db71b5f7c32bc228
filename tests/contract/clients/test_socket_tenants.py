"""WebSockets where keys are asked for: who may open one, whose chains it can go on from, and what is told of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.ports import free_port
from tests.support.processes import SHEPHERD, process, simulator

ACME, EVIL, RULER = "sk-acme-0123456789", "sk-evil-0123456789", "sk-ruler-0123456789"


def config(directory: Path) -> Path:
    keys = [("acme", ACME, "data"), ("evil", EVIL, "data"), ("acme", RULER, "admin")]
    listed = [
        f"    - {{tenant: {tenant}, name: {key[3:8]}, key: {key}, scopes: [{scope}]}}" for tenant, key, scope in keys
    ]
    path = directory / "shepherd.yaml"
    path.write_text("\n".join(["tenancy:", "  keys:", *listed, ""]))
    return path


class Served:
    """A gateway with keys: its address, its process, and what it logs."""

    def __init__(self, address: str, running: subprocess.Popen[bytes], log: Path) -> None:
        self.address, self.running, self._log = address, running, log

    def open(self, key: str | None) -> connect:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return connect(self.address, additional_headers=headers, proxy=None)

    def lines(self) -> list[dict[str, Any]]:
        """The access log's lines about sockets."""
        every = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in every if line["message"] == "websocket"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    url = f"127.0.0.1:{(port := free_port())}"
    with simulator("--token-ms", "20") as worker:
        words = [SHEPHERD, "serve", "--port", str(port), "--worker-urls", worker, "--data-dir", tmp_path]
        words += ["--config", config(tmp_path), "--access-log", "--log-json"]
        log = tmp_path / "log"
        with process(words, ready=f"http://{url}/readiness", log=log) as running:
            yield Served(f"ws://{url}/v1/responses", running, log)


async def hear(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(60):
        return json.loads(await socket.recv())


async def ask(socket: ClientConnection, **fields: Any) -> dict[str, Any]:
    """The last event of the answer."""
    await socket.send(json.dumps({"type": "response.create", "model": "simulated", "input": "Hello", **fields}))
    while (event := await hear(socket))["type"] not in {"response.completed", "response.failed", "error"}:
        pass
    return event


@pytest.mark.parametrize("key", [None, "sk-nobody-0123456789", RULER])
async def test_without_a_good_key_nothing_opens(served: Served, key: str | None) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with served.open(key):
            pass
    assert refusal.value.response.status_code == 403


async def test_another_tenant_cannot_go_on_from_a_response(served: Served) -> None:
    async with served.open(ACME) as ours, served.open(EVIL) as theirs:
        for store in (True, False):
            first = (await ask(ours, store=store))["response"]["id"]
            refused = await ask(theirs, store=store, previous_response_id=first)
            assert (refused["status"], refused["error"]["code"]) == (400, "previous_response_not_found")
            # It reads like one that there never was.
            unknown = await ask(theirs, store=store, previous_response_id="resp_" + "0" * len(first[5:]))
            assert unknown["error"]["message"].replace("0" * len(first[5:]), first[5:]) == refused["error"]["message"]
            assert (await ask(ours, store=store, previous_response_id=first))["type"] == "response.completed"


async def test_a_server_that_stops_finishes_what_was_begun_and_closes(served: Served) -> None:
    words = " ".join(["word"] * 30)
    async with served.open(ACME) as busy, served.open(EVIL) as idle:
        await busy.send(json.dumps({"type": "response.create", "model": "simulated", "input": words}))
        while (await hear(busy))["type"] != "response.output_text.delta":
            pass
        served.running.terminate()
        while (event := await hear(busy))["type"] != "response.completed":
            assert event["type"].startswith("response."), event
        for socket in (busy, idle):
            with pytest.raises(ConnectionClosed) as closed:
                await hear(socket)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
    assert await asyncio.to_thread(served.running.wait, 60) == 0
    told = served.lines()
    assert sorted((line["tenant"], line["status"], line["route"], line["code"]) for line in told) == [
        ("acme", 101, "/v1/responses", 1012),
        ("evil", 101, "/v1/responses", 1012),
    ]
    assert all(line["ms"] > 0 for line in told)
