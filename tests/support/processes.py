"""Real processes for tests: started on a free loopback port, waited for, ended by the one who started them.

Whatever a gateway among them says is written down, and judged when it has ended (`tests.support.transcripts`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx

from tests.support.ports import free_port
from tests.support.recording import RECORD_TO
from tests.support.transcripts import faults_in

SHEPHERD = Path(sys.executable).parent / "shepherd"
ROOT = Path(__file__).parents[2]
# Gateways that log to one directory are of one world, and have to tell the same of the same response.
TRANSCRIPTS = tempfile.TemporaryDirectory(prefix="transcripts-")
NUMBERS = count()


def wait_until_ok(url: str, process: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    """Return once `url` answers 200; fail when the process ends or the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"{process.args} ended with {process.returncode}")
        try:
            if httpx.get(url, timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"{url} did not come up in {seconds} s")


@contextmanager
def process(
    command: Sequence[str | Path],
    *,
    ready: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    judged: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the block ends. `ready` is a URL to wait for.

    What a gateway said has to be legal, unless it is not `judged`, which is for tests that make it break the law.
    """
    number = next(NUMBERS)
    world = Path(TRANSCRIPTS.name) / (str(number) if log is None else f"at{log.parent}".replace("/", "-"))
    world.mkdir(exist_ok=True)
    environment = {**(os.environ if env is None else env), RECORD_TO: str(world / f"{number}.transcript")}
    whole = _recorded(command, environment)
    with bare_process(whole, ready=ready, cwd=cwd, env=environment, log=log) as started:
        yield started
    if judged and (faults := faults_in(world)):
        raise AssertionError("\n".join(["what a gateway said is not legal:", *faults]))


def _recorded(command: Sequence[str | Path], environment: dict[str, str]) -> Sequence[str | Path]:
    if list(command[:2]) != [SHEPHERD, "serve"]:
        return command
    environment["PYTHONPATH"] = str(ROOT)
    return [sys.executable, "-m", "tests.support.recording", *command[1:]]


@contextmanager
def bare_process(
    command: Sequence[str | Path],
    *,
    ready: str | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` as it is until the block ends, for benchmarks: nothing is written down, which costs CPU."""
    with log.open("ab") if log else Path(os.devnull).open("wb") as output:
        started = subprocess.Popen([str(word) for word in command], cwd=cwd, env=env, stdout=output, stderr=output)
    try:
        if ready is not None:
            wait_until_ok(ready, started)
        yield started
    finally:
        if started.poll() is None:
            started.terminate()
            try:
                started.wait(60)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


@contextmanager
def simulator(*flags: str, cwd: Path | None = None) -> Iterator[str]:
    """A simulated worker; yields its URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    with process([SHEPHERD, "simulate", "--port", str(port), *flags], ready=f"{url}/health", cwd=cwd):
        yield url


@contextmanager
def gateway(directory: Path, *flags: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """A gateway with its data in `directory`; yields its URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [SHEPHERD, "serve", "--port", str(port), "--database-url", f"sqlite:///{directory}/history.db", *flags]
    with process(command, ready=f"{url}/readiness", cwd=directory, env=env, log=directory / "gateway.log"):
        yield url
