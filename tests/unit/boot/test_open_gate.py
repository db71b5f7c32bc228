"""A server without keys serves its own machine, and others only where that was asked for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.boot.listening import StartError
from app.boot.tenants import open_gate
from app.db.engine import Database, with_driver
from app.db.migrate import upgrade
from app.db.settings import DatabaseSettings
from app.settings.server import ServerSettings
from app.settings.tree import Settings
from app.tenancy.settings import TenancySettings
from app.tenancy.store import TenantStore
from app.turn.ids import RandomIds
from tests.support.clocks import HandClock


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(with_driver(f"sqlite:///{tmp_path / 'a.db'}"), DatabaseSettings(sqlite_synchronous="normal"))
    await upgrade(made)
    yield made
    await made.close()


def on(host: str, **tenancy: bool) -> Settings:
    return Settings(server=ServerSettings(host=host), tenancy=TenancySettings(**tenancy))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.5.5.5"])
async def test_loopback_may_be_open(database: Database, host: str) -> None:
    assert await (await open_gate(database, on(host), RandomIds(), HandClock())).is_open()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com"])
async def test_anything_else_needs_a_key_or_a_word(database: Database, host: str) -> None:
    with pytest.raises(StartError, match="no API key"):
        await open_gate(database, on(host), RandomIds(), HandClock())
    assert await (await open_gate(database, on(host, allow_open=True), RandomIds(), HandClock())).is_open()
    store = TenantStore(database, RandomIds())
    await store.create_tenant("acme", 1)
    await store.create_key("acme", "ci", ("data",), 1)
    assert not await (await open_gate(database, on(host), RandomIds(), HandClock())).is_open()
