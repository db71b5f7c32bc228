"""A whole Shepherd of real processes for real clients: gateway, simulated worker, demo MCP server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest
from agents import OpenAIResponsesModel

from tests.support.demo import demo_mcp_server
from tests.support.processes import gateway, simulator


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with one commit, for the git MCP server to look at."""
    directory = tmp_path_factory.mktemp("repository")
    (directory / "sheep.txt").write_text("dolly\n")
    identity = ["-c", "user.name=Shepherd", "-c", "user.email=shepherd@example.org"]
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=directory, check=True)
    subprocess.run(["git", "add", "."], cwd=directory, check=True)
    subprocess.run(["git", *identity, "commit", "-q", "-m", "Count the first sheep"], cwd=directory, check=True)
    return directory


@pytest.fixture(scope="session")
def demo_mcp() -> Iterator[str]:
    """The demo MCP server; its URL."""
    with demo_mcp_server() as url:
        yield url


@pytest.fixture(scope="session")
def shepherd(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[str]:
    """A gateway in front of a simulated worker, with two operator-defined stdio servers; its URL."""
    directory = tmp_path_factory.mktemp("shepherd")
    binaries = Path(sys.executable).parent
    config = directory / "shepherd.yaml"
    config.write_text(
        f"""
mcp:
  servers:
    - label: time
      command: ["{binaries}/mcp-server-time", "--local-timezone", "UTC"]
    - label: git
      command: ["{binaries}/mcp-server-git", "--repository", "{repository}"]
"""
    )
    with (
        simulator("--models", "simulated", "simulated-reasoning") as worker,
        gateway(directory, "--worker-urls", worker, "--config", str(config)) as url,
    ):
        yield url


@pytest.fixture
def client(shepherd: str) -> Iterator[openai.OpenAI]:
    """The real SDK, pointed at us."""
    with openai.OpenAI(base_url=f"{shepherd}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
async def api(shepherd: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """The real SDK, asynchronous, pointed at us."""
    async with openai.AsyncOpenAI(base_url=f"{shepherd}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def model(api: openai.AsyncOpenAI) -> OpenAIResponsesModel:
    """The simulated model, as openai-agents knows models."""
    return OpenAIResponsesModel(model="simulated", openai_client=api)
