"""What the tests with processes that die share: the processes, a client that remembers, and the oracle.

The oracle reads three things a crash cannot touch: what the client saw, what the tools' ledger holds, and what the
server says about the response afterwards.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from app.dialects.openai_responses.check import check_sse
from tests.support.ports import free_port
from tests.support.processes import SHEPHERD, process, wait_until_ok

SCRIPT = """
replies:
  - text: Let me see.
    calls:
      - {name: charge, arguments: {number: 1}}
  - calls:
      - {name: charge, arguments: {number: 2}}
      - {name: look, arguments: {number: 3}}
  - text: That is all there is to say about it.
"""
LAST_WORDS = b"That is all there is to say about it."
LEASE_SECS = 1.0
ENDED = ("completed", "failed", "incomplete", "cancelled")


class Seen:
    """What a client saw of a response: the bytes of each event, by number."""

    def __init__(self) -> None:
        self.response_id: str | None = None
        self.events: dict[int, bytes] = {}
        self.changed: list[int] = []
        self.answered = self.cut = False
        self.error: dict[str, Any] | None = None

    def take(self, line: str) -> None:
        """A line of a stream."""
        if not line.startswith("data: ") or line == "data: [DONE]":
            return
        data = json.loads(line[6:])
        number, raw = data["sequence_number"], line[6:].encode()
        if data["type"] == "error":
            # The end of this stream, and not of the response.
            self.error = data
            return
        if self.events.setdefault(number, raw) != raw:
            self.changed.append(number)
        if "response" in data:
            self.response_id = data["response"]["id"]

    @property
    def end(self) -> str | None:
        """How it was told that the response ended."""
        last = json.loads(self.events[max(self.events)]) if self.events else {}
        kind = str(last.get("type")).removeprefix("response.")
        return kind if kind in ENDED else None

    def item(self, kind: str) -> dict[str, Any] | None:
        """The item of that type that it was told of."""
        told = (json.loads(data) for data in self.events.values())
        done = (event["item"] for event in told if event["type"] == "response.output_item.done")
        return next((item for item in done if item["type"] == kind), None)

    def read(self, method: str, url: str, **options: Any) -> None:
        """Read a stream until it ends or breaks."""
        try:
            with httpx.stream(method, url, timeout=120, **options) as answer:
                self.answered = True
                for line in answer.iter_lines():
                    self.take(line)
        except httpx.TransportError:
            self.cut = True

    def await_events(self, number: int, seconds: float = 60) -> None:
        """Return once it was told so many, by whoever reads meanwhile; with 0, once it is answered."""
        end = time.monotonic() + seconds
        while not self.answered or len(self.events) < number:
            assert time.monotonic() < end, f"it was told {len(self.events)} events"
            time.sleep(0.01)


class World:
    """A worker, a server of tools, a database, and gateways on it."""

    def __init__(self, home: Path, database: str, worker: str, tools: str, ledger: Path) -> None:
        self.home = home
        self.database = database
        self.worker = worker
        self.tools = tools
        self.ledger = ledger
        self._before = len(ledger.read_text().splitlines()) if ledger.exists() else 0

    def body(self, **more: object) -> dict[str, object]:
        """A request that takes two turns of tools and one of text."""
        return {"model": "simulated", "input": "Go on.", "stream": True, "tools": [self.tool], **more}

    @property
    def tool(self) -> dict[str, object]:
        """The server of tools, as a request names it."""
        return {"type": "mcp", "server_label": "effects", "server_url": self.tools, "require_approval": "never"}

    def effects(self) -> list[dict[str, Any]]:
        """What reached the tools."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [json.loads(line) for line in lines[self._before :]]

    @contextmanager
    def gateway(
        self,
        *doom: str,
        program: str = "tests.support.doomed_server",
        ready: bool = True,
        more: Mapping[str, str] | None = None,
        **settings: object,
    ) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
        """A gateway, doomed to die at a point, or to what another `program` does; its URL and its process.

        `more` is for its environment."""
        url = f"http://127.0.0.1:{(port := free_port())}"
        program = [sys.executable, "-m", program, *doom] if doom else [SHEPHERD]
        flags = ["serve", "--port", str(port), "--database-url", self.database, "--worker-urls", self.worker]
        with process(
            [*program, *flags], cwd=Path.cwd(), env={**self.env(**settings), **(more or {})}, log=self.home / "log"
        ) as running:
            if ready:
                wait_until_ok(f"{url}/readiness", running)
            yield url, running

    def await_ready(self, url: str, running: subprocess.Popen[bytes]) -> bool:
        """Return once the gateway listens, or is dead: false."""
        try:
            wait_until_ok(f"{url}/readiness", running)
        except AssertionError:
            return False
        return True

    def env(self, **settings: object) -> Mapping[str, str]:
        """The environment of a gateway whose leases are short."""
        given = {
            "history__lease_secs": LEASE_SECS,
            "history__poll_secs": 0.2,
            # Whatever happens is written by itself, so that there are many places to die at.
            "history__commit_interval_ms": 0,
            "server__data_dir": self.home,
            **settings,
        }
        return {**os.environ, **{f"SHEPHERD__{name.upper()}": str(value) for name, value in given.items()}}


class Park:
    """A worker that follows a script, and a server of tools. They know nothing of what dies."""

    def __init__(self, worker: str, tools: str, ledger: Path) -> None:
        self.worker = worker
        self.tools = tools
        self.ledger = ledger

    def world(self, home: Path, database: str | None = None) -> World:
        """A database with these beside it."""
        return World(home, database or f"sqlite:///{home / 'history.db'}", self.worker, self.tools, self.ledger)


@contextmanager
def park(home: Path, *pace: str, script: str = SCRIPT) -> Iterator[Park]:
    """Both, for as long as the block lasts; `pace` are flags of the simulator."""
    (home / "script.yaml").write_text(script)
    ledger = home / "ledger"
    worker = free_port()
    scripted = [SHEPHERD, "simulate", "--port", str(worker), "--script", str(home / "script.yaml"), *pace]
    with process(scripted, ready=f"http://127.0.0.1:{worker}/health"), effects(ledger) as tools:
        yield Park(f"http://127.0.0.1:{worker}", tools, ledger)


@contextmanager
def effects(ledger: Path) -> Iterator[str]:
    """The server of tools, for as long as the block lasts; its URL."""
    port = free_port()
    command = [sys.executable, "-m", "tests.support.effects_server", "--port", str(port), "--ledger", str(ledger)]
    with process(command, cwd=Path.cwd()) as running:
        await_port(port, running)
        yield f"http://127.0.0.1:{port}/mcp"


def await_port(port: int, running: subprocess.Popen[bytes]) -> None:
    """Return once something listens."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert running.poll() is None
        try:
            httpx.get(f"http://127.0.0.1:{port}/", timeout=1)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("nothing listens")


def ended(url: str, response_id: str, seconds: float = 120) -> dict[str, Any]:
    """The response once it is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = httpx.get(f"{url}/v1/responses/{response_id}", timeout=30)
        if answer.status_code == 200 and answer.json()["status"] in ENDED:
            return answer.json()
        time.sleep(0.05)
    raise AssertionError(f"{response_id} did not end: {answer.status_code} {answer.text[:500]}")


def verdict(there: World, url: str, seen: Seen, *, replay: Seen | None = None, responses: int = 1) -> list[str]:
    """What is wrong with how the response came out; empty when nothing is. `responses` were made on these tools."""
    assert seen.response_id is not None
    response = ended(url, seen.response_id)
    whole = replay or Seen()
    raw = httpx.get(f"{url}/v1/responses/{seen.response_id}?stream=true", timeout=30).content
    for line in raw.decode().split("\n"):
        whole.take(line)
    wrong = [f"event {number} changed" for number in (*seen.changed, *whole.changed)]
    wrong += [f"event {n} is not what was sent" for n, data in seen.events.items() if whole.events.get(n) != data]
    wrong += check_sse(raw, cancelled=response["status"] == "cancelled")
    if sorted(whole.events) != list(range(len(whole.events))):
        wrong.append("there are gaps in the log")
    keys = [effect["key"] for effect in there.effects() if effect["tool"] == "charge"]
    wrong += [f"{key} took effect twice" for key in set(keys) if keys.count(key) > 1 or key is None]
    # What the model asked for once happened at most once. A script may say a reply again after a turn was cut; that is
    # another call, which has an item of its own.
    asked = [json.loads(item["arguments"])["number"] for item in response["output"] if _is_charge(item)]
    charged = [effect["number"] for effect in there.effects() if effect["tool"] == "charge"]
    for number in set(charged):
        if charged.count(number) > responses * max(asked.count(number), 1):
            wrong.append(f"charge {number} was asked for {asked.count(number)} times and made {charged.count(number)}")
    return wrong


def _is_charge(item: dict[str, Any]) -> bool:
    # One that was cut while it was said is no call.
    return item["type"] == "mcp_call" and item["name"] == "charge" and item["status"] == "completed"


def open_runs(path: Path) -> int:
    """How many runs a SQLite database says are being made."""
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT count(*) FROM runs").fetchone()[0]


def only_response(path: Path) -> str | None:
    """The response that a SQLite database holds, under way or over, whoever has heard of it."""
    with sqlite3.connect(path) as connection:
        ids = [found for (found,) in connection.execute("SELECT id FROM runs UNION SELECT id FROM responses")]
    assert len(ids) <= 1
    return ids[0] if ids else None


def freeze(running: subprocess.Popen[bytes]) -> None:
    """Stop the process in its tracks."""
    running.send_signal(signal.SIGSTOP)


def await_stop(running: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Return once the process stands still."""
    end = time.monotonic() + seconds
    while os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WNOHANG) is None:
        assert time.monotonic() < end, "it goes on"
        time.sleep(0.02)


def thaw(running: subprocess.Popen[bytes]) -> None:
    """Let it go on as if nothing had been."""
    running.send_signal(signal.SIGCONT)
