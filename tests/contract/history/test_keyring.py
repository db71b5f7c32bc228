"""What is sealed is for the tenant, the place and the master key it was sealed for, and for nobody once shredded."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import update

from app.db.engine import Database, with_driver
from app.history import tables
from app.history.keyring import FRESH_SECS, Keyring, Master, WrongKey
from app.history.retention import Retention
from app.history.store import SqlHistoryStore
from app.responses.sealing import TenantTokens
from app.turn.errors import Unavailable
from app.turn.ids import RandomIds
from tests.contract.history.conftest import SETTINGS
from tests.contract.history.making import build, counts, ids, item, response


class Hands:
    """A clock turned by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def master() -> Master:
    """A new master key."""
    return Master(os.urandom(32))


async def _sealed(database: Database, tenant: str, key: Master) -> tuple[Keyring, bytes]:
    keyring = Keyring(database, [key], Hands())
    await keyring.ready(tenant)
    return keyring, keyring.seal(tenant, "items/c/1", b"secret words")


async def test_what_was_sealed_opens_at_its_place_only(database: Database, tenant: str) -> None:
    keyring, sealed = await _sealed(database, tenant, master())
    assert b"secret" not in sealed
    assert keyring.open(tenant, "items/c/1", sealed) == b"secret words"
    assert keyring.seal(tenant, "items/c/1", b"secret words") != sealed
    await keyring.ready("another")
    for who, place, what in (
        (tenant, "items/c/2", sealed),
        ("another", "items/c/1", sealed),
        (tenant, "items/c/1", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (tenant, "items/c/1", sealed[:4] + b"\x09" + sealed[5:]),
    ):
        with pytest.raises(Unavailable):
            keyring.open(who, place, what)


async def test_another_process_opens_it_and_another_master_key_does_not(database: Database, tenant: str) -> None:
    key = master()
    _, sealed = await _sealed(database, tenant, key)
    again = Keyring(database, [key], Hands())
    await again.ready(tenant)
    assert again.open(tenant, "items/c/1", sealed) == b"secret words"
    stranger = Keyring(database, [master()], Hands())
    with pytest.raises(WrongKey):
        await stranger.ready(tenant)


async def test_a_tenant_s_new_key_seals_what_is_new_and_the_old_one_opens_what_is_old(
    database: Database, tenant: str
) -> None:
    keyring, sealed = await _sealed(database, tenant, master())
    assert await keyring.renew(tenant) == 2
    newer = keyring.seal(tenant, "items/c/2", b"more")
    assert (sealed[4], newer[4]) == (1, 2)
    assert keyring.open(tenant, "items/c/1", sealed) == b"secret words"
    assert keyring.open(tenant, "items/c/2", newer) == b"more"


async def test_master_keys_are_replaced_without_touching_content(sqlite_path: Path, tenant: str) -> None:
    database = Database(with_driver(f"sqlite:///{sqlite_path}"), SETTINGS)
    old, new = master(), master()
    keyring, sealed = await _sealed(database, tenant, old)
    named = keyring.name(tenant, "person")
    assert await Keyring(database, [new, old], Hands()).rotate() == 1
    rotated = Keyring(database, [new], Hands())
    await rotated.check()
    await rotated.ready(tenant)
    assert rotated.open(tenant, "items/c/1", sealed) == b"secret words"
    assert rotated.name(tenant, "person") == named
    with pytest.raises(WrongKey):
        await Keyring(database, [old], Hands()).check()
    await database.close()


async def test_a_shredded_key_reaches_every_process_in_time(database: Database, tenant: str) -> None:
    key, clock = master(), Hands()
    keyring, sealed = await _sealed(database, tenant, key)
    other = Keyring(database, [key], clock)
    await other.ready(tenant)
    await keyring.shred(tenant)
    await keyring.ready(tenant)
    with pytest.raises(Unavailable):
        keyring.open(tenant, "items/c/1", sealed)
    assert other.open(tenant, "items/c/1", sealed) == b"secret words"
    clock.time = FRESH_SECS + 1
    await other.ready(tenant)
    with pytest.raises(Unavailable):
        other.open(tenant, "items/c/1", sealed)


async def test_nothing_that_was_said_is_in_the_file(sqlite_path: Path, tenant: str) -> None:
    database = Database(with_driver(f"sqlite:///{sqlite_path}"), SETTINGS)
    keyring = Keyring(database, [master()], Hands())
    store = SqlHistoryStore(database, RandomIds(), keyring)
    secret = msgspec.structs.replace(
        response("a"), snapshot=msgspec.Raw(b'{"x":"hello"}'), end_user="hello", output=(item("o", "hello"),)
    )
    await store.save(tenant, secret)
    raw = b"".join(path.read_bytes() for path in sqlite_path.parent.glob("history.db*"))
    assert tenant.encode() in raw
    assert b"hello" not in raw
    assert b"hello" in bytes((await store.get(tenant, "a")).snapshot)
    await database.close()


async def test_content_that_was_moved_is_not_taken_for_another(database: Database, tenant: str) -> None:
    keyring = Keyring(database, [master()], Hands())
    store = SqlHistoryStore(database, RandomIds(), keyring)
    await store.save(tenant, response("a", given=1, made=1))
    rows = tables.items.c
    async with database.writing() as connection:
        one = (tables.items.c.tenant == tenant) & (rows.position == 0)
        other = (tables.items.c.tenant == tenant) & (rows.position == 1)
        body = await connection.scalar(tables.items.select().with_only_columns(rows.body).where(one))
        await connection.execute(update(tables.items).where(other).values(body=body))
    with pytest.raises(Unavailable):
        await store.context(tenant, "a")


# ── erasing ───────────────────────────────────────────────────────────────────


async def test_what_clients_carry_cannot_be_read_when_its_tenant_is_gone(database: Database, tenant: str) -> None:
    keyring = Keyring(database, [master()], Hands())
    tokens = TenantTokens(b"k" * 32, keyring)
    await tokens.ready(tenant)
    token = tokens.seal(tenant, b"a thought")
    await keyring.renew(tenant)
    await tokens.ready(tenant)
    assert tokens.open(tenant, token) == b"a thought"
    await Retention(database, SqlHistoryStore(database, RandomIds(), keyring), keyring).erase_tenant(tenant)
    await tokens.ready(tenant)
    assert tokens.open(tenant, token) is None


async def test_a_user_or_a_tenant_is_handed_out_and_erased(database: Database, tenant: str) -> None:
    keyring = Keyring(database, [master()], Hands())
    store = SqlHistoryStore(database, RandomIds(), keyring)
    retention = Retention(database, store, keyring)
    await build(store, tenant, {"a": None, "b": "a", "fork": "a"})
    for k in range(3):
        await store.save(tenant, msgspec.structs.replace(response(f"u{k}"), end_user="user-1"))
    await build(store, f"{tenant}2", {"a": None})
    assert [each.id async for each in retention.responses(tenant, "user-1")] == ["u0", "u1", "u2"]
    assert len([each async for each in retention.responses(tenant)]) == 6
    assert await retention.erase_user(tenant, "nobody") == 0
    assert await retention.erase_user(tenant, "user-1") == 3
    assert (await counts(database, tenant))[2] == 3
    await retention.erase_tenant(tenant)
    assert await counts(database, tenant) == (0, 0, 0)
    assert ids(await store.context(f"{tenant}2", "a")) == ["a_i0", "a_o0", "a_o1"]
    await build(store, tenant, {"a": None})
    assert len(await store.context(tenant, "a")) == 3
