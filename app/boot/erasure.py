"""What an operator does about what is kept, without a server: hand it out, forget it, change its keys."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from app.boot.database import open_database
from app.boot.keys import open_keyring
from app.boot.listening import StartError
from app.boot.sealed import open_secrets
from app.db.engine import Database
from app.dialects.openai_responses.encode import body_from
from app.history.keyring import Keyring
from app.history.resealing import Sealed, reseal, seal_content
from app.history.retention import Retention
from app.history.store import SqlHistoryStore
from app.mcp.tables import approvals, credentials, definitions, elicitations, enrolments, policies, servers
from app.settings.tree import Settings
from app.turn.errors import GatewayError
from app.turn.ids import RandomIds

# What the MCP room keeps sealed; a sign-in that has begun is not worth it.
SECRETS: Final = (
    Sealed(credentials, "sealed", lambda row: f"credentials/{row.server}/{row.principal}"),
    Sealed(approvals, "arguments", lambda row: f"approvals/{row.id}"),
    Sealed(elicitations, "sealed", lambda row: f"elicitations/{row.id}"),
)


async def export(settings: Settings, tenant: str, end_user: str | None, write: Callable[[bytes], None]) -> str:
    """Give `write` a line for each response: what it is, and its own input. Raises `StartError`."""
    async with _retention(settings) as retention:
        async for found in retention.responses(tenant, end_user):
            body = msgspec.Raw(body_from(found.snapshot, found.output))
            given = [item.raw for item in found.input]
            write(msgspec.json.encode({"response": body, "input": given, "expires_at": found.expires_at}))
    return ""


async def erase(settings: Settings, tenant: str, end_user: str | None) -> str:
    """Forget what is kept of the tenant or one of its users; what was done. Raises `StartError`."""
    async with _retention(settings) as retention:
        if end_user is not None:
            erased = await retention.erase_user(tenant, end_user)
            return f"Erased {erased} responses, and what was said in them wherever others build on it."
        erased = await retention.erase_tenant(tenant)
        return f"Erased {erased} rows, and the keys they were sealed with."


async def rotate(settings: Settings) -> str:
    """Seal all tenants' keys with the master key in use; what was done. Raises `StartError`."""
    async with _keyring(settings) as keyring:
        count = await keyring.rotate()
    return f"Sealed {count} keys anew. Master keys that were replaced are not needed any more."


async def renew(settings: Settings, tenant: str) -> str:
    """Give the tenant a new key; what was done. Raises `StartError`."""
    async with _keyring(settings) as keyring:
        version = await keyring.renew(tenant)
    return f"What {tenant} stores from now on is sealed with its key {version}."


async def seal_all(settings: Settings) -> str:
    """Seal what older versions stored in clear, or under another key; what was done. Raises `StartError`."""
    async with _database(settings) as database:
        keyring = await open_keyring(settings, database, secrets=True)
        content = await seal_content(database, keyring) if settings.history.encrypt else 0
        older = open_secrets(settings, keyring)
        secrets = 0
        for each in SECRETS:
            secrets += await reseal(database, keyring, each, older.in_clear)
    return f"Sealed {content} values that were not sealed, and {secrets} secrets that were under another key."


@asynccontextmanager
async def _keyring(settings: Settings) -> AsyncGenerator[Keyring]:
    async with _database(settings) as database:
        yield await open_keyring(settings, database)


@asynccontextmanager
async def _retention(settings: Settings) -> AsyncGenerator[Retention]:
    async with _database(settings) as database:
        sealer = await open_keyring(settings, database)
        store = SqlHistoryStore(database, RandomIds(), sealer)
        beside = (approvals, credentials, definitions, elicitations, enrolments, policies, servers)
        yield Retention(database, store, sealer, beside)


@asynccontextmanager
async def _database(settings: Settings) -> AsyncGenerator[Database]:
    database = await open_database(settings)
    try:
        yield database
    except GatewayError as error:
        raise StartError(error.message) from error
    finally:
        await database.close()
