"""What an older version stored in clear, or under another key, is sealed with its tenant's keys, and goes with them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from msgspec import structs

from app.boot.erasure import SECRETS
from app.boot.sealed import SecretSealer
from app.db.engine import Database, with_driver
from app.history import tables
from app.history.conversations import SqlConversationStore
from app.history.keyring import Keyring, Master
from app.history.prompts import SqlPromptStore
from app.history.resealing import CONTENT, reseal, seal_content
from app.history.retention import Retention
from app.history.seal import Clear
from app.history.store import SqlHistoryStore
from app.mcp.sealing import KeySealer
from app.mcp.tables import credentials
from app.responses.stores import Conversation
from app.turn.errors import Unavailable
from app.turn.ids import RandomIds
from tests.contract.history.conftest import SETTINGS
from tests.contract.history.making import item, response
from tests.contract.history.postgres_server import Server

SECRET = "the blue heron nests at dawn"


@pytest.fixture
def keyring(database: Database) -> Keyring:
    """Keys of their own."""
    return Keyring(database, [Master(os.urandom(32))], time.monotonic)


async def test_what_is_not_sealed_is_not_taken_for_content(database: Database, keyring: Keyring, tenant: str) -> None:
    await keyring.ready(tenant)
    with pytest.raises(Unavailable) as caught:
        keyring.open(tenant, "items/c/1", b'{"forged":true}')
    assert caught.value.code == "history_unsealed"
    master = [Master(os.urandom(32))]
    lenient = Keyring(database, master, time.monotonic, accepts_unsealed=True)
    assert lenient.open(tenant, "items/c/1", b"{}") == b"{}"
    not_sealing = Keyring(database, master, time.monotonic, sealing=False)
    assert not_sealing.open(tenant, "items/c/1", b"{}") == b"{}"


async def test_an_item_somebody_put_into_the_database_is_not_read(
    database: Database, keyring: Keyring, tenant: str
) -> None:
    store = SqlHistoryStore(database, RandomIds(), keyring)
    await store.save(tenant, response("a"))
    async with database.writing() as connection:
        forged = sa.update(tables.items).where(tables.items.c.tenant == tenant).values(body=b'{"id":"x"}')
        await connection.execute(forged)
    with pytest.raises(Unavailable):
        await store.context(tenant, "a")


async def test_everything_that_was_in_clear_gets_sealed(sqlite_path: Path, tenant: str) -> None:
    database = Database(with_driver(f"sqlite:///{sqlite_path}"), SETTINGS)
    await _all_kinds(database, tenant)
    keyring = Keyring(database, [Master(os.urandom(32))], time.monotonic)
    await _check_upgrade(database, keyring, tenant)
    await database.close()


async def test_everything_that_was_in_clear_gets_sealed_in_postgres(postgres: Server, tenant: str) -> None:
    database = Database(with_driver(await postgres.create(f"reseal_{tenant}")), SETTINGS)
    async with database.writing() as connection:
        await connection.run_sync(tables.chains.metadata.create_all)
    await _all_kinds(database, tenant)
    keyring = Keyring(database, [Master(os.urandom(32))], time.monotonic)
    await _check_upgrade(database, keyring, tenant)
    await database.close()


async def _check_upgrade(database: Database, keyring: Keyring, tenant: str) -> None:
    for each in CONTENT:
        assert any(SECRET.encode() in value for value in await _values(database, each.table, each.column)), each.table
    assert await seal_content(database, keyring) == 451 + 3 + 4
    for each in CONTENT:
        values = await _values(database, each.table, each.column)
        assert values
        assert not any(SECRET.encode() in value for value in values), each.table
    assert await seal_content(database, keyring) == 0
    store = SqlHistoryStore(database, RandomIds(), keyring)
    context = await store.context(tenant, "a")
    assert len(context) == 449
    assert SECRET in bytes(context[448].raw).decode()
    talks = SqlConversationStore(database, RandomIds(), keyring)
    assert (await talks.get(tenant, "conv")).metadata == {"x": SECRET}
    assert SECRET in bytes((await SqlPromptStore(database, keyring).get(tenant, "pmpt", None)).body).decode()
    # Who was named in clear is still found.
    retention = Retention(database, store, keyring)
    assert [each.id async for each in retention.responses(tenant, "ann")] == ["a"]


async def _all_kinds(database: Database, tenant: str) -> None:
    clear = Clear()
    store = SqlHistoryStore(database, RandomIds(), clear)
    long = tuple(item(f"i{k}", SECRET) for k in range(448))
    snapshot = response("a").snapshot.__class__(f'{{"x":"{SECRET}"}}'.encode())
    saved = structs.replace(response("a"), input=long, output=(item("o", SECRET),), snapshot=snapshot, end_user="ann")
    await store.save(tenant, saved)
    await store.save(tenant, structs.replace(response("b"), input=(), output=(item("p", SECRET),)))
    await store.save(tenant, structs.replace(response("c"), input=(), output=()))
    conversation = Conversation(id="conv", created_at=1, metadata={"x": SECRET})
    await SqlConversationStore(database, RandomIds(), clear).create(tenant, conversation, [item("q", SECRET)])
    await SqlPromptStore(database, clear).create(tenant, "pmpt", f'{{"x":"{SECRET}"}}'.encode(), 1)
    key = {"tenant": tenant, "response_id": "a", "position": 0, "sequence_number": 0}
    run = {
        "tenant": tenant, "id": "z", "owner": None, "fence": 0, "expires": 0.0, "background": True,
        "cancelled": False, "created_at": 1, "conversation_id": None, "request": SECRET.encode(),
    }  # fmt: skip
    async with database.writing() as connection:
        await connection.execute(sa.insert(tables.entries), {**key, "body": SECRET.encode()})
        await connection.execute(sa.insert(tables.runs), run)


async def _values(database: Database, table: sa.Table, column: str) -> list[bytes]:
    async with database.reading() as connection:
        return list((await connection.execute(sa.select(table.c[column]))).scalars())


async def test_secrets_under_an_older_key_are_read_and_get_under_the_tenant_s(
    database: Database, keyring: Keyring, tenant: str
) -> None:
    older = KeySealer(lambda: b"k" * 32)
    place = "credentials/s1/"
    row = {"tenant": tenant, "server": "s1", "principal": "", "version": "1", "kind": "bearer", "created_at": 1}
    async with database.writing() as connection:
        sealed = older.seal(tenant, place, SECRET.encode())
        await connection.execute(sa.insert(credentials), {**row, "sealed": sealed})
    await keyring.ready(tenant)
    sealer = SecretSealer(keyring, older)
    assert sealer.open(tenant, place, sealed) == SECRET.encode()
    assert await reseal(database, keyring, SECRETS[0], sealer.in_clear) == 1
    assert await reseal(database, keyring, SECRETS[0], sealer.in_clear) == 0
    query = sa.select(credentials.c.sealed).where(credentials.c.tenant == tenant)
    async with database.reading() as connection:
        now = await connection.scalar(query)
    # The older key is not needed any more, and whoever has it reads nothing.
    assert SecretSealer(keyring, None).open(tenant, place, now) == SECRET.encode()
    with pytest.raises(Unavailable):
        older.open(tenant, place, now)
    await keyring.shred(tenant)
    await keyring.ready(tenant)
    with pytest.raises(Unavailable) as caught:
        sealer.open(tenant, place, now)
    assert caught.value.code == "secret_unreadable"
    async with database.writing() as connection:
        await connection.execute(sa.delete(credentials).where(credentials.c.tenant == tenant))
