"""A process that is stopped in the middle of a statement keeps its run for a moment, and no longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.db.engine import Database, with_driver
from app.db.settings import DatabaseSettings
from app.db.stalled import APPLICATION, undo_stalled
from tests.contract.history.conftest import SETTINGS
from tests.contract.history.test_runs_contract import LEASE_SECS, Server, begun, servers
from tests.support.waiting import eventually

__all__ = ["servers"]

LOCK = "SELECT fence FROM runs WHERE tenant = $1 FOR SHARE"
# PostgreSQL is told of it, and waits to hear with what: as far as a driver comes before it hears something itself.
HALF = "INSERT INTO runs (tenant) VALUES ($1) RETURNING id"


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    """Where no transaction may stand still for longer than a moment."""
    settings = DatabaseSettings(postgresql_idle_transaction_secs=0.2, op_timeout_secs=SETTINGS.op_timeout_secs)
    made = Database(with_driver(postgres_url), settings)
    yield made
    await made.close()


async def held(postgres_url: str, tenant: str, name: str) -> asyncpg.Connection:
    """A session that goes by `name`, has the tenant's runs, and says no more."""
    session: asyncpg.Connection = await asyncpg.connect(postgres_url, server_settings={"application_name": name})
    await session.execute("BEGIN")
    await session.fetch(LOCK, tenant)
    await session.prepare(HALF)
    return session


async def ended(database: Database, seconds: float) -> int:
    return await database.look(lambda connection: undo_stalled(connection, seconds))


@pytest.mark.parametrize("any_url", ["postgres"], indirect=True)
async def test_its_run_is_taken_over(
    servers: list[Server], postgres_url: str, database: Database, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begun(servers[0], tenant)
    await servers[1].later(tenant, LEASE_SECS + 1)
    stopped = await held(postgres_url, tenant, APPLICATION)
    # It may only pause.
    assert await servers[1].claim(tenant) == []
    assert await stopped.fetchval("SELECT 1") == 1
    await stopped.prepare(HALF)
    monkeypatch.setattr(servers[1].runs, "_database", database)
    async with asyncio.timeout(30):
        while not (taken := await servers[1].claim(tenant)):  # noqa: ASYNC110 - PostgreSQL does not tell
            await asyncio.sleep(0.05)
    assert [each.lease.fence for each in taken] == [2]
    await eventually(stopped.is_closed)


async def test_others_may_stand_still_for_as_long_as_they_like(
    postgres_url: str, database: Database, tenant: str
) -> None:
    sessions = [await held(postgres_url, tenant, "backup")]
    idle = await asyncpg.connect(postgres_url, server_settings={"application_name": APPLICATION})
    sessions.append(idle)
    await idle.execute("BEGIN")
    await asyncio.sleep(0.05)
    assert await ended(database, 0.0) == 0
    for each in sessions:
        assert await each.fetchval("SELECT 1") == 1
        await each.close()
