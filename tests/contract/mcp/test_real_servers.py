"""The reference servers of npm and PyPI as an operator would start them, behind a real gateway: nobody here wrote them.

A model calls the tools of eight of them, over stdio, and what they did is looked for where they do it: in files, in a
repository, in a database. Needs node and PyPI's servers: run by `make test-mcp`.
"""

from __future__ import annotations

import http.server
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from msgspec import Struct

from tests.support.processes import gateway, simulator

ROOT = Path(__file__).parents[3]
MODULES = ROOT / "tests" / "js" / "node_modules"
NODE = MODULES / ".bin" / "node"
NPM = MODULES / "@modelcontextprotocol"
PYTHON = Path(sys.executable).parent
SQLITE = ROOT / ".venv-servers" / "bin" / "mcp-server-sqlite"

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(
        not (NODE.exists() and (NPM / "server-memory").exists() and SQLITE.exists()),
        reason="not installed: make test-mcp does it",
    ),
]

PAGE = b"<html><body><article><h1>Sheep</h1><p>There are forty-two of them on the hill.</p></article></body></html>"


class World(Struct, frozen=True):
    """The SDK in front of the gateway, and what its servers work on."""

    client: openai.OpenAI
    files: Path
    repository: Path
    database: Path
    memory: Path
    page: str

    def ask(self, text: str, *labels: str, **more: Any) -> dict[str, Any]:
        """The calls a response makes when the model reads `text`, by tool. The listing has to work."""
        tools: Any = [{"type": "mcp", "server_label": label, "require_approval": "never"} for label in labels]
        response = self.client.responses.create(model="simulated", input=text, tools=tools, **more)
        assert response.status == "completed"
        assert not [item.error for item in response.output if item.type == "mcp_list_tools" and item.error]
        return {item.name: item for item in response.output if item.type == "mcp_call"}

    def call(self, label: str, tool: str, **arguments: Any) -> str:
        """What `tool` answers, which has to be no error."""
        made = self.ask(f"{tool} {json.dumps(arguments)}", label)[tool]
        assert made.error is None, made.error
        assert made.server_label == label
        return made.output


def _git(repository: Path, *words: str) -> str:
    who = ("-c", "user.name=Shepherd", "-c", "user.email=shepherd@example.invalid")
    command = ["git", *who, "-C", str(repository), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """A page on loopback."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *args: object) -> None:
            del args

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, page: str) -> Iterator[World]:
    """A gateway whose settings name all eight."""
    place = tmp_path_factory.mktemp("servers").resolve()
    files, repository, database, memory = (place / name for name in ("files", "repository", "sheep.db", "memory.jsonl"))
    files.mkdir()
    repository.mkdir()
    _git(repository, "init", "-q", "-b", "main")
    (repository / "hill.txt").write_text("one sheep\n")
    _git(repository, "add", ".")
    _git(repository, "commit", "-q", "-m", "Count the first sheep")

    def npm(name: str, *words: str) -> list[str]:
        return [str(NODE), str(NPM / f"server-{name}" / "dist" / "index.js"), *words]

    commands: dict[str, list[str]] = {
        "everything": npm("everything", "stdio"),
        "filesystem": npm("filesystem", str(files)),
        "memory": npm("memory"),
        "thinking": npm("sequential-thinking"),
        "time": [str(PYTHON / "mcp-server-time"), "--local-timezone", "UTC"],
        "git": [str(PYTHON / "mcp-server-git"), "--repository", str(repository)],
        "fetch": [str(PYTHON / "mcp-server-fetch"), "--ignore-robots-txt", "--allow-private-ips"],
        "sqlite": [str(SQLITE), "--db-path", str(database)],
    }
    env = {"memory": {"MEMORY_FILE_PATH": str(memory)}}
    servers = [{"label": label, "command": each, "env": env.get(label, {})} for label, each in commands.items()]
    config = place / "shepherd.json.yaml"
    config.write_text(json.dumps({"mcp": {"servers": servers}}))
    with (
        simulator() as worker,
        gateway(place, "--worker-urls", worker, "--config", str(config)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield World(client, files, repository, database, memory, page)


def test_everything(world: World) -> None:
    assert "42" in world.call("everything", "get-sum", a=2, b=40)
    assert "temperature" in world.call("everything", "get-structured-content", location="Chicago")


def test_what_the_gateway_knows_is_not_in_a_servers_environment(world: World) -> None:
    seen = world.call("everything", "get-env")
    assert '"PATH"' in seen
    assert "SHEPHERD" not in seen
    assert "VIRTUAL_ENV" not in seen


def test_filesystem_writes_where_it_may_and_nowhere_else(world: World) -> None:
    world.call("filesystem", "write_file", path=str(world.files / "hill.txt"), content="baa")
    assert (world.files / "hill.txt").read_text() == "baa"
    assert "hill.txt" in world.call("filesystem", "list_directory", path=str(world.files))
    elsewhere = world.repository / "HEAD"
    refused = world.ask(f"write_file {json.dumps({'path': str(elsewhere), 'content': 'x'})}", "filesystem")
    assert refused["write_file"].error is not None
    assert not elsewhere.exists()


def test_memory_remembers_from_one_response_to_the_next(world: World) -> None:
    sheep = {"name": "Dolly", "entityType": "sheep", "observations": ["was cloned"]}
    world.call("memory", "create_entities", entities=[sheep])
    assert "was cloned" in world.memory.read_text()
    assert "was cloned" in world.call("memory", "search_nodes", query="Dolly")


def test_sequential_thinking_keeps_its_thoughts_in_one_conversation(world: World) -> None:
    thought = {"thought": "Count them.", "nextThoughtNeeded": True, "totalThoughts": 2}

    def think(number: int, conversation: str) -> int:
        text = f"sequentialthinking {json.dumps({**thought, 'thoughtNumber': number})}"
        made = world.ask(text, "thinking", conversation=conversation)
        return json.loads(made["sequentialthinking"].output)["thoughtHistoryLength"]

    one, other = (world.client.conversations.create().id for _ in range(2))
    assert (think(1, one), think(1, other), think(2, one)) == (1, 1, 2)


def test_time(world: World) -> None:
    told = world.call("time", "convert_time", source_timezone="UTC", time="12:00", target_timezone="Asia/Tokyo")
    assert "T21:00" in told


def test_git_reads_and_changes_a_repository(world: World) -> None:
    repository = str(world.repository)
    assert "Count the first sheep" in world.call("git", "git_log", repo_path=repository)
    world.call("git", "git_create_branch", repo_path=repository, branch_name="shearing")
    assert "shearing" in _git(world.repository, "branch", "--list")


def test_fetch(world: World) -> None:
    assert "forty-two" in world.call("fetch", "fetch", url=world.page)


def test_sqlite(world: World) -> None:
    world.call("sqlite", "create_table", query="CREATE TABLE sheep (name TEXT)")
    world.call("sqlite", "write_query", query="INSERT INTO sheep VALUES ('Dolly')")
    with sqlite3.connect(world.database) as connection:
        assert connection.execute("SELECT name FROM sheep").fetchall() == [("Dolly",)]
    assert "Dolly" in world.call("sqlite", "read_query", query="SELECT name FROM sheep")


def test_one_response_uses_all_of_them(world: World) -> None:
    """Of the handshake's protocol and of the stateless one, side by side."""
    asked = {
        "get-sum": {"a": 20, "b": 22},
        "list_allowed_directories": {},
        "read_graph": {},
        "sequentialthinking": {
            "thought": "x", "nextThoughtNeeded": False, "thoughtNumber": 1, "totalThoughts": 1,
        },
        "get_current_time": {"timezone": "UTC"},
        "git_status": {"repo_path": str(world.repository)},
        "fetch": {"url": world.page},
        "list_tables": {},
    }  # fmt: skip
    text = " and ".join(f"{tool} {json.dumps(arguments)}" for tool, arguments in asked.items())
    labels = ("everything", "filesystem", "memory", "thinking", "time", "git", "fetch", "sqlite")
    made = world.ask(text, *labels)
    assert {name: call.error for name, call in made.items()} == dict.fromkeys(asked)
    assert [made[tool].server_label for tool in asked] == list(labels)


def test_a_call_waits_for_a_person_unless_the_request_says_otherwise(world: World) -> None:
    tools: Any = [{"type": "mcp", "server_label": "sqlite"}]
    text = 'write_query {"query": "CREATE TABLE wolves (name TEXT)"}'
    asked = world.client.responses.create(model="simulated", input=text, tools=tools)
    (waiting,) = [item for item in asked.output if item.type == "mcp_approval_request"]
    tables = "SELECT name FROM sqlite_master WHERE name = 'wolves'"
    with sqlite3.connect(world.database) as connection:
        assert connection.execute(tables).fetchall() == []
    answer: Any = [{"type": "mcp_approval_response", "approval_request_id": waiting.id, "approve": False}]
    told = world.client.responses.create(model="simulated", input=answer, tools=tools, previous_response_id=asked.id)
    assert told.status == "completed"
    with sqlite3.connect(world.database) as connection:
        assert connection.execute(tables).fetchall() == []
