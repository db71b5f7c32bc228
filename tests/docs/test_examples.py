"""The README's examples run, as they are written, against a real gateway."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings.load import load
from tests.docs.pages import page
from tests.support.processes import SHEPHERD

README = page("README.md")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """`shepherd demo`, as `make run` starts it; the URLs of the gateway and of the MCP server, as it says them."""
    directory = tmp_path_factory.mktemp("demo")
    log = (directory / "log").open("wb")
    command = [SHEPHERD, "demo", "--port", "0", "--data-dir", str(directory)]
    started = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert started.stdout is not None
        said = ""
        for line in started.stdout:
            said += line
            if "Ctrl-C" in line:
                break
        yield re.findall(r"listens on (\S+)", said)[0], re.findall(r"MCP server at (\S+?)\. ", said)[0]
    finally:
        started.terminate()
        started.communicate(timeout=60)
        log.close()


@pytest.mark.parametrize("example", README.blocks("python"))
def test_python_examples_run(example: str, demo: tuple[str, str], tmp_path: Path) -> None:
    gateway, mcp = demo
    program = example.replace("http://127.0.0.1:30000", gateway).replace("http://127.0.0.1:30001/mcp", mcp)
    assert program.count(gateway) == 1
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "42" in ran.stdout


def test_there_is_an_example() -> None:
    assert len(README.blocks("python")) >= 1
    assert len(README.blocks("yaml")) >= 1


@pytest.mark.parametrize("example", README.blocks("yaml"))
def test_settings_examples_are_valid(example: str, tmp_path: Path) -> None:
    path = tmp_path / "shepherd.yaml"
    path.write_text(example)
    loaded = load({"server.config": str(path)}, {})
    assert any(given.kind == "file" for given in loaded.given.values())
