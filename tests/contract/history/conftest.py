"""The stores the contract is held against, and the databases under them."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest

from app.db.engine import Database, with_driver
from app.db.migrate import upgrade
from app.db.settings import DatabaseSettings
from app.history.memory import MemoryHistoryStore
from app.history.opened import OpenedContexts
from app.history.seal import Clear
from app.history.store import SqlHistoryStore
from app.responses.ports import HistoryStore
from app.turn.ids import RandomIds
from tests.contract.history.postgres_server import Server, running_or_skip

# A machine that runs tests may stand still while a connection has the file: who waits for that has the time.
SETTINGS = DatabaseSettings(
    sqlite_synchronous="normal", sqlite_busy_timeout_secs=60, connect_timeout_secs=60, op_timeout_secs=60
)


postgres = pytest.fixture(scope="session")(running_or_skip)


@pytest.fixture(scope="session")
def postgres_url(postgres: Server) -> str:
    """A PostgreSQL database at head."""
    url = asyncio.run(postgres.create("history"))
    asyncio.run(_upgrade(url))
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file at head, to be copied."""
    path = tmp_path_factory.mktemp("template") / "history.db"
    asyncio.run(_upgrade(f"sqlite:///{path}"))
    return path


@pytest.fixture
def sqlite_path(sqlite_template: Path, tmp_path: Path) -> Path:
    """A SQLite file at head of the test's own."""
    return Path(shutil.copy(sqlite_template, tmp_path / "history.db"))


def _url(kind: str, request: pytest.FixtureRequest) -> str:
    if kind == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{request.getfixturevalue('sqlite_path')}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """A database at head."""
    return _url(request.param, request)


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """The same, open."""
    database = Database(with_driver(url), SETTINGS)
    yield database
    await database.close()


@pytest.fixture
def sql_store(database: Database) -> SqlHistoryStore:
    """The real thing."""
    return SqlHistoryStore(database, RandomIds(), Clear())


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def any_url(request: pytest.FixtureRequest) -> str | None:
    """Where a store keeps things; None: nowhere."""
    return None if request.param == "memory" else _url(request.param, request)


@pytest.fixture
async def store(any_url: str | None) -> AsyncIterator[HistoryStore]:
    """Everything that claims to be a `HistoryStore`."""
    if any_url is None:
        yield MemoryHistoryStore()
        return
    database = Database(with_driver(any_url), SETTINGS)
    yield SqlHistoryStore(database, RandomIds(), Clear(), OpenedContexts(2**20, 60.0, monotonic))
    await database.close()


@pytest.fixture
def tenant() -> str:
    """A tenant nobody else uses, so that tests can share a database."""
    return f"tenant-{uuid.uuid4().hex}"


@pytest.fixture
def patience() -> float:
    """For how many seconds a run waits for its database; no run has to, unless a test says so."""
    return 60.0


async def _upgrade(url: str) -> None:
    database = Database(with_driver(url), SETTINGS)
    await upgrade(database)
    await database.close()
