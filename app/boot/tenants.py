"""Tenants at start and on the command line: the gate before all handlers, and what an operator does to keys."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from app.boot.database import open_database
from app.boot.listening import StartError, is_loopback
from app.boot.world import SystemClock
from app.db.engine import Database
from app.responses.ports import Clock
from app.settings.tree import Settings
from app.tenancy.gate import Gate
from app.tenancy.keys import Key
from app.tenancy.principal import Scope
from app.tenancy.store import Tenant, TenantStore
from app.turn.errors import GatewayError
from app.turn.ids import IdSource, RandomIds

_log = logging.getLogger(__name__)


async def open_gate(database: Database, settings: Settings, ids: IdSource, clock: Clock) -> Gate:
    """The gate. Raises `StartError` where it would stand open to other machines unless that is what is wanted."""
    try:
        gate = Gate(TenantStore(database, ids), settings.tenancy, clock)
    except ValueError as error:
        raise StartError(f"tenancy.keys: {error}") from error
    try:
        is_open = await gate.is_open()
    except GatewayError as error:
        raise StartError(error.message) from error
    if not is_open or is_loopback(settings.server.host):
        return gate
    if not settings.tenancy.allow_open:
        raise StartError(
            f"{settings.server.host} is reachable from other machines, and there is no API key: anyone who reaches it "
            "could use it. Make one (shepherd tenant create, shepherd key create), listen on 127.0.0.1, or allow it "
            "with --allow-open."
        )
    _log.warning("%s is reachable from other machines and needs no key: anyone can use it", settings.server.host)
    return gate


async def create_tenant(settings: Settings, name: str) -> Tenant:
    """A new tenant. Raises `StartError`."""
    async with _store(settings) as store:
        return await store.create_tenant(name, SystemClock().now())


async def list_tenants(settings: Settings) -> Sequence[Tenant]:
    """All tenants. Raises `StartError`."""
    async with _store(settings) as store:
        return await store.tenants()


async def revoke_tenant(settings: Settings, name: str) -> None:
    """Lock a tenant out. Raises `StartError`."""
    async with _store(settings) as store:
        await store.revoke_tenant(name, SystemClock().now())


async def create_key(
    settings: Settings, tenant: str, name: str, scopes: Sequence[Scope], expires_in_secs: int | None
) -> tuple[Key, str]:
    """A new key, and the key itself. Raises `StartError`."""
    now = SystemClock().now()
    expires_at = None if expires_in_secs is None else int(now) + expires_in_secs
    async with _store(settings) as store:
        return await store.create_key(tenant, name, scopes, now, expires_at=expires_at)


async def list_keys(settings: Settings, tenant: str | None) -> Sequence[Key]:
    """The keys in the database. Raises `StartError`."""
    async with _store(settings) as store:
        return await store.keys(tenant)


async def revoke_key(settings: Settings, key_id: str) -> None:
    """Make a key worthless. Raises `StartError`."""
    async with _store(settings) as store:
        await store.revoke_key(key_id, SystemClock().now())


@asynccontextmanager
async def _store(settings: Settings) -> AsyncGenerator[TenantStore]:
    database = await open_database(settings)
    try:
        yield TenantStore(database, RandomIds())
    except GatewayError as error:
        raise StartError(error.message) from error
    finally:
        await database.close()
