"""`shepherd demo`, which is what `make run` runs: it says three commands, and each of them works as it is written."""

from __future__ import annotations

import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.dialects.openai_responses.check import check_sse
from tests.support.ports import free_block
from tests.support.processes import SHEPHERD

pytestmark = pytest.mark.slow

# The printed commands name the interpreter from here.
ROOT = Path(__file__).parents[2]
LAST_LINE = "Ctrl-C ends it all."


@contextmanager
def demo(directory: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A demo with its data in `directory`, and what it said when it was ready."""
    command = [SHEPHERD, "demo", "--data-dir", str(directory / "data"), *flags]
    log = (directory / "demo.log").open("a")
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    assert running.stdout is not None
    said: list[str] = []
    try:
        for line in running.stdout:
            said.append(line)
            if line.strip() == LAST_LINE:
                break
        assert said, (directory / "demo.log").read_text()
        yield running, "".join(said)
    finally:
        if running.poll() is None:
            running.kill()
        running.wait()
        running.stdout.close()
        log.close()


def commands(said: str) -> list[str]:
    """The commands: what stands between the numbered headings."""
    parts = re.split(r"^\d\. .*\n", said.removesuffix("\n").removesuffix(LAST_LINE), flags=re.MULTILINE)
    return [part.strip() for part in parts[1:]]


def shell(command: str) -> str:
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ports(said: str) -> set[int]:
    return {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", said)}


def gateway_of(said: str) -> str:
    return re.findall(r"Shepherd listens on (\S+)", said)[0]


def test_it_says_three_commands_and_the_sdks_works(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0") as (_, said):
        _, sdk, _ = commands(said)
        assert shell(sdk) == "add returned: 42\n"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_with_curl_work(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0") as (_, said):
        curl, _, streaming = commands(said)
        assert '"status":"completed"' in shell(curl)
        stream = shell(streaming)
        assert check_sse(stream.encode()) == []
        assert "response.completed" in stream
        for kind in ("reasoning", "mcp_list_tools", "mcp_call", "message"):
            assert f'"type":"{kind}"' in stream
        assert "Dolly the sheep" in stream
        assert (tmp_path / "data").is_dir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_everything_ends(tmp_path: Path, number: signal.Signals) -> None:
    with demo(tmp_path, "--port", "0") as (running, said):
        assert len(ports(said)) == 2
        assert all(listens(port) for port in ports(said))
        running.send_signal(number)
        assert running.wait(60) == (-number if number is signal.SIGKILL else 0)
        end = time.monotonic() + 60
        while any(listens(port) for port in ports(said)):
            assert time.monotonic() < end, "something still listens"
            time.sleep(0.02)


def test_history_outlives_the_demo(tmp_path: Path) -> None:
    with demo(tmp_path, "--port", "0") as (_, said):
        body = {"model": "simulated", "input": "Hello there!"}
        made = httpx.post(f"{gateway_of(said)}/v1/responses", json=body, timeout=30).json()
    with demo(tmp_path, "--port", "0") as (_, said):
        assert httpx.get(f"{gateway_of(said)}/v1/responses/{made['id']}", timeout=30).json() == made


@pytest.mark.parametrize("busy", [0, 1])
def test_a_busy_port_is_said_and_nothing_is_left_running(tmp_path: Path, busy: int) -> None:
    port = free_block(2, random.Random())
    command = [SHEPHERD, "demo", "--port", str(port), "--data-dir", str(tmp_path)]
    with socket.create_server(("127.0.0.1", port + busy)):
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port + busy}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_port_is_the_gateways_and_the_next_is_the_mcp_servers(tmp_path: Path) -> None:
    port = free_block(2, random.Random())
    with demo(tmp_path, "--port", str(port)) as (_, said):
        assert ports(said) == {port, port + 1}
        assert f"http://127.0.0.1:{port + 1}/mcp" in said
