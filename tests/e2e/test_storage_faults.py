"""Storage that fails under a server: each failure is an error its client sees, nothing is half written, what was said
stays said, and the server needs no restart to go on."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from msgspec import Struct

from tests.contract.history.postgres_server import Server
from tests.e2e.crashing import Park, Seen, World, ended, park, verdict
from tests.support.full_disks import small_disk
from tests.support.ports import free_port
from tests.support.processes import SHEPHERD, process

pytestmark = pytest.mark.slow

PATIENCE_SECS = 0.5
SCRIPT = f"""
replies:
  - when: ^Hello
    text: Hello yourself.
  - text: Let me see.
    calls:
      - {{name: charge, arguments: {{number: 1}}}}
  - text: {"word " * 60}
"""
# What does not fit into a page that is there already.
LONG = "A long story. " * 4000


class Fault(Struct, frozen=True):
    """A database that can be made to fail, and to work again."""

    database: str
    break_it: Callable[[], object]
    mend: Callable[[], object]
    # Whether what is there can be read meanwhile.
    readable: bool = True
    # What is said to the program that serves, where it is not the usual one.
    program: str = ""
    words: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Park]:
    """A worker that speaks slowly, and tools."""
    with park(tmp_path_factory.mktemp("park"), "--token-ms", "60", script=SCRIPT) as found:
        yield found


@contextmanager
def sqlite_on_a_full_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fault]:
    del request
    with small_disk(tmp_path / "disk", "8m") as disk:
        yield Fault(f"sqlite:///{disk.path / 'history.db'}", disk.fill, disk.free)


@contextmanager
def postgres_on_a_full_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fault]:
    server: Server = request.getfixturevalue("postgres")
    # Its owner has to get there, which he may not through pytest's own directories.
    del tmp_path
    with small_disk(server.home / "disk", "48m") as disk:
        name = f"full_{uuid.uuid4().hex}"
        space = disk.path / "space"
        server.own_directory(space)
        asyncio.run(tell(server, f"CREATE TABLESPACE {name} LOCATION '{space}'"))
        asyncio.run(tell(server, f"CREATE DATABASE {name} TABLESPACE {name}"))
        try:
            yield Fault(server.url(name), disk.fill, disk.free)
        finally:
            asyncio.run(tell(server, f"DROP DATABASE {name} WITH (FORCE)"))
            asyncio.run(tell(server, f"DROP TABLESPACE {name}"))


@contextmanager
def read_only_sqlite(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fault]:
    """As on a disk that the system has come to mount read-only."""
    del request
    switch = tmp_path / "protected"
    program = "tests.support.write_protected"
    database = f"sqlite:///{tmp_path / 'history.db'}"
    yield Fault(database, switch.touch, switch.unlink, program=program, words=(str(switch),))


@contextmanager
def read_only_postgres(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fault]:
    """As after a failover to a server that only follows."""
    del tmp_path
    server: Server = request.getfixturevalue("postgres")
    url = asyncio.run(server.create(name := f"ro_{uuid.uuid4().hex}"))

    def turn(word: str) -> None:
        asyncio.run(tell(server, f"ALTER DATABASE {name} SET default_transaction_read_only = {word}"))
        gone = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        asyncio.run(tell(server, gone))

    yield Fault(url, lambda: turn("on"), lambda: turn("off"))


@contextmanager
def postgres_that_is_gone(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Fault]:
    del tmp_path
    server: Server = request.getfixturevalue("postgres")
    url = asyncio.run(server.create(f"gone_{uuid.uuid4().hex}"))
    yield Fault(url, server.stop, server.start, readable=False)


async def tell(server: Server, statement: str) -> None:
    """Have a superuser's statement executed."""
    connection = await asyncpg.connect(server.url())
    await connection.execute(statement)
    await connection.close()


@pytest.fixture(
    params=[
        sqlite_on_a_full_disk,
        read_only_sqlite,
        postgres_on_a_full_disk,
        read_only_postgres,
        postgres_that_is_gone,
    ],
    ids=lambda made: made.__name__,
)
def fault(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fault]:
    """A database and its fault, or a skip that says why it cannot be had here."""
    try:
        with request.param(tmp_path, request) as found:
            yield found
    except LookupError as reason:
        pytest.skip(str(reason))


def post(url: str, **fields: object) -> httpx.Response:
    body = {"model": "simulated", "input": "Hello there", **fields}
    return httpx.post(f"{url}/v1/responses", json=body, timeout=120)


def conversation(url: str) -> str:
    """A new one."""
    return httpx.post(f"{url}/v1/conversations", json={}, timeout=60).raise_for_status().json()["id"]


def error_of(answer: httpx.Response) -> tuple[int, object]:
    return answer.status_code, answer.json()["error"]["code"]


def await_recovery(url: str) -> None:
    """Return once the server stores responses again."""
    end = time.monotonic() + 60
    while post(url).status_code != 200:
        assert time.monotonic() < end, "the server did not recover"
        time.sleep(0.1)


def test_every_failure_is_told_and_none_outlasts_its_cause(beside: Park, fault: Fault, tmp_path: Path) -> None:
    there = beside.world(tmp_path, fault.database)
    with process([SHEPHERD, "migrate", "--database-url", fault.database], log=tmp_path / "log") as migrating:
        assert migrating.wait(180) == 0
    serving = there.gateway(*fault.words, program=fault.program, history__patience_secs=PATIENCE_SECS)
    with serving as (url, _), ThreadPoolExecutor() as pool:
        before = post(url).json()
        talk = conversation(url)
        streamed, queued = Seen(), Seen()
        # The one that may be over by then comes first.
        queueing = pool.submit(queued.read, "POST", f"{url}/v1/responses", json=there.body(background=True))
        queued.await_events(4)
        asked = there.body(input=LONG, conversation=talk)
        streaming = pool.submit(streamed.read, "POST", f"{url}/v1/responses", json=asked)
        whole = pool.submit(httpx.post, f"{url}/v1/responses", json=there.body(input=LONG, stream=False), timeout=120)
        streamed.await_events(4)
        fault.break_it()
        try:
            _check_broken(url, before["id"], talk, readable=fault.readable)
            streaming.result(120)
            assert whole.result(120).status_code == 503
            # Who follows one in the background is told so, or still waits when the database is back.
        finally:
            fault.mend()
        await_recovery(url)
        queueing.result(120)
        _check_mended(there, url, streamed, queued, before["id"], talk)
    _check_whole(fault.database)


def _check_broken(url: str, before: str, talk: str, *, readable: bool) -> None:
    """What is asked for while nothing can be written is refused, or was there before, or needs no writing."""
    assert error_of(post(url, input=LONG)) == (503, "history_unavailable")
    assert error_of(post(url, input=LONG, stream=True)) == (503, "history_unavailable")
    after = post(url, input=LONG, previous_response_id=before)
    assert error_of(after) == (503, "history_unavailable"), after.text
    said: dict[str, Any] = {"items": [{"type": "message", "role": "user", "content": LONG}]}
    assert error_of(httpx.post(f"{url}/v1/conversations", json=said, timeout=60)) == (503, "history_unavailable")
    unwritten = httpx.post(f"{url}/v1/conversations/{talk}/items", json=said, timeout=60)
    assert unwritten.status_code in {400, 503}, unwritten.text
    assert post(url, store=False).status_code == 200
    found = httpx.get(f"{url}/v1/responses/{before}", timeout=60)
    if readable:
        assert found.json()["status"] == "completed"
    else:
        assert error_of(found) == (503, "history_unavailable")


def _check_mended(there: World, url: str, streamed: Seen, queued: Seen, before: str, talk: str) -> None:
    """What was told is what is stored, and what was not told an end has come to its own."""
    assert streamed.response_id is not None
    assert queued.response_id is not None
    assert not streamed.cut
    failed = ended(url, streamed.response_id)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "history_unavailable")
    assert verdict(there, url, streamed, responses=3) == []
    _check_free(url, talk)
    # Nobody waited for the one in the background: it went on where it was, whether or not its follower could wait.
    assert queued.error is None or queued.error["code"] == "history_unavailable"
    assert not queued.cut
    made = ended(url, queued.response_id)
    assert (made["status"], made["error"]) == ("completed", None)
    assert verdict(there, url, queued, responses=3) == []
    assert post(url, previous_response_id=before).status_code == 200
    assert post(url, previous_response_id=queued.response_id).status_code == 200


def _check_free(url: str, talk: str) -> None:
    """A response can be made in the conversation."""
    end = time.monotonic() + 60
    while (answer := post(url, conversation=talk)).status_code != 200:
        assert answer.json()["error"]["code"] == "conversation_locked"
        assert time.monotonic() < end, "the conversation stays locked"
        time.sleep(0.1)


def _check_whole(database: str) -> None:
    """No run is left open, and no log is without its response."""
    lost = "SELECT count(*) FROM entries e WHERE NOT EXISTS (SELECT 1 FROM responses r WHERE r.id = e.response_id)"
    statements = ("SELECT count(*) FROM runs", lost)
    if database.startswith("sqlite"):
        with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            counts = [connection.execute(each).fetchone()[0] for each in statements]
    else:
        counts = asyncio.run(_counted(database, statements))
    assert counts == [0, 0]


async def _counted(url: str, statements: tuple[str, ...]) -> list[int]:
    connection = await asyncpg.connect(url)
    try:
        return [await connection.fetchval(each) for each in statements]
    finally:
        await connection.close()


@pytest.mark.parametrize(("file", "directory"), [(0o444, 0o755), (0o644, 0o555)])
def test_a_sqlite_that_cannot_be_written_is_refused_at_start_and_served_once_it_can(
    tmp_path: Path, file: int, directory: int
) -> None:
    place = tmp_path / "data"
    place.mkdir()
    path, log = place / "history.db", tmp_path / "log"
    url = f"sqlite:///{path}"
    with process([SHEPHERD, "migrate", "--database-url", url], log=log) as migrating:
        assert migrating.wait(180) == 0
    serve = [SHEPHERD, "serve", "--port", str(port := free_port()), "--database-url", url]
    command = [sys.executable, "-m", "tests.support.unprivileged", sys.executable, *serve]
    env = {**os.environ, "SHEPHERD__SERVER__DATA_DIR": str(tmp_path)}
    path.chmod(file)
    place.chmod(directory)
    try:
        with process(command, env=env, log=log, cwd=Path.cwd()) as refused:
            assert refused.wait(180) == 1
    finally:
        path.chmod(0o644)
        place.chmod(0o755)
    said = log.read_text().splitlines()[-1]
    assert said.startswith(f"shepherd: cannot use the database {url}: ")
    assert said.endswith(f"user {os.geteuid()} cannot write to {path if directory == 0o755 else place}")
    with process(command, env=env, log=log, cwd=Path.cwd(), ready=f"http://127.0.0.1:{port}/liveness"):
        pass


def test_a_postgres_that_only_follows_is_refused_at_start(tmp_path: Path, postgres: Server) -> None:
    log = tmp_path / "log"
    url = asyncio.run(postgres.create(name := f"standby_{uuid.uuid4().hex}"))
    with process([SHEPHERD, "migrate", "--database-url", url], log=log) as migrating:
        assert migrating.wait(180) == 0
    asyncio.run(tell(postgres, f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    env = {**os.environ, "SHEPHERD__SERVER__DATA_DIR": str(tmp_path)}
    with process([SHEPHERD, "serve", "--port", "0", "--database-url", url], env=env, log=log) as refused:
        assert refused.wait(180) == 1
    assert "it is read-only" in log.read_text().splitlines()[-1]
