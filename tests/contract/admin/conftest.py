"""The whole gateway in this process, with a database of its own and keys of two tenants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Struct
from prometheus_client import CollectorRegistry

from app.api.gateway import create_app
from app.boot.rooms import opened
from app.boot.tenants import create_key, create_tenant
from app.db.settings import DatabaseSettings
from app.mcp.settings import McpSettings
from app.routing.settings import RoutingSettings
from app.settings.server import ServerSettings
from app.settings.tree import Settings
from tests.support.recording import Recorder
from tests.support.transcripts import faults_in


class Gateway(Struct):
    """Clients of the gateway: by tenant and scope, `acme.admin`, `acme.data`, `evil.admin`, …; what it was set to do,
    and what it counts."""

    clients: dict[str, httpx.AsyncClient]
    settings: Settings
    metrics: CollectorRegistry

    def __getitem__(self, name: str) -> httpx.AsyncClient:
        return self.clients[name]


def settings_in(folder: Path, workers: tuple[str, ...] = (), **mcp: Any) -> Settings:
    return Settings(
        routing=RoutingSettings(worker_urls=workers),
        server=ServerSettings(data_dir=str(folder), port=0),
        mcp=McpSettings(**{"allow_loopback": True, **mcp}),
        db=DatabaseSettings(sqlite_synchronous="normal"),
    )


@pytest.fixture
def mcp_settings() -> dict[str, Any]:
    return {}


@pytest.fixture
def workers() -> tuple[str, ...]:
    return ()


@pytest.fixture
async def gateway(tmp_path: Path, mcp_settings: dict[str, Any], workers: tuple[str, ...]) -> AsyncIterator[Gateway]:
    settings = settings_in(tmp_path, workers, **mcp_settings)
    clients: dict[str, httpx.AsyncClient] = {}
    keys: dict[str, str] = {}
    for tenant in ("acme", "evil"):
        await create_tenant(settings, tenant)
        for name, scopes in (
            ("admin", ("admin",)),
            ("boss", ("admin",)),
            ("data", ("data",)),
            ("both", ("admin", "data")),
        ):
            keys[f"{tenant}.{name}"] = (await create_key(settings, tenant, name, scopes, None))[1]
    async with opened(settings) as rooms:
        app = Recorder(create_app(rooms.services), tmp_path / "1.transcript")
        for name, key in keys.items():
            transport = httpx.ASGITransport(app, raise_app_exceptions=True)  # type: ignore[arg-type]
            headers = {"authorization": f"Bearer {key}"}
            clients[name] = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)
        yield Gateway(clients, settings, rooms.services.metrics.registry)
        for client in clients.values():
            await client.aclose()
    assert faults_in(tmp_path) == []
