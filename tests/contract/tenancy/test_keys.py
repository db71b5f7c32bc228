"""Who is admitted, on every database."""

import asyncio
import uuid

import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.telemetry.secret import Secret
from app.tenancy.gate import Gate
from app.tenancy.keys import Key, digest
from app.tenancy.principal import ANYONE, Principal
from app.tenancy.settings import ConfiguredKey, TenancySettings
from app.tenancy.store import TenantStore
from app.turn.errors import Conflict, NotFound, Unauthenticated, Unavailable
from app.turn.ids import RandomIds
from tests.support.clocks import HandClock


@pytest.fixture
async def store(database: Database) -> TenantStore:
    async with database.writing() as connection:
        await connection.execute(text("DELETE FROM api_keys"))
        await connection.execute(text("DELETE FROM tenants"))
    return TenantStore(database, RandomIds())


def gate(store: TenantStore, clock: HandClock, **settings: object) -> Gate:
    return Gate(store, TenancySettings(**settings), clock)  # pyright: ignore[reportArgumentType]


async def test_without_keys_everyone_is_the_default_tenant(store: TenantStore) -> None:
    assert await gate(store, HandClock()).admit(None) == ANYONE
    assert await gate(store, HandClock()).admit("anything") == ANYONE


async def test_a_key_admits_its_principal_and_nobody_else(store: TenantStore) -> None:
    await store.create_tenant("acme", 1)
    key, secret = await store.create_key("acme", "ci", ("data",), 1)
    door = gate(store, HandClock())
    assert await door.admit(secret) == Principal("acme", key.id, frozenset(["data"]))
    for wrong in (None, "", secret[:-1], secret + "x", "shp_", key.id):
        with pytest.raises(Unauthenticated):
            await door.admit(wrong)


async def test_the_first_key_closes_an_open_server_and_revoking_it_does_not_open_it(store: TenantStore) -> None:
    clock = HandClock()
    door = gate(store, clock)
    assert await door.admit(None) == ANYONE
    await store.create_tenant("acme", 1)
    key, _ = await store.create_key("acme", "ci", ("data",), 1)
    await store.revoke_key(key.id, 2)
    clock.at += 5
    with pytest.raises(Unauthenticated) as refused:
        await door.admit(None)
    assert refused.value.code == "missing_api_key"


async def test_a_revoked_key_lives_as_long_as_the_cache_says(store: TenantStore) -> None:
    clock = HandClock()
    await store.create_tenant("acme", 1)
    key, secret = await store.create_key("acme", "ci", ("data",), 1)
    door = gate(store, clock, key_cache_secs=3)
    await door.admit(secret)
    await store.revoke_key(key.id, 2)
    clock.at += 2.9
    await door.admit(secret)
    clock.at += 0.1
    with pytest.raises(Unauthenticated):
        await door.admit(secret)


class Slow(TenantStore):
    """A store that says when it may answer, and counts what it is asked."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, RandomIds())
        self.answers, self.asked = asyncio.Event(), 0

    async def by_digest(self, key_digest: bytes) -> Key | None:
        self.asked += 1
        await self.answers.wait()
        return await super().by_digest(key_digest)

    async def has_keys(self) -> bool:
        self.asked += 1
        await self.answers.wait()
        return await super().has_keys()


async def test_many_who_come_at_once_share_one_look_up(store: TenantStore, database: Database) -> None:
    slow = Slow(database)
    door = gate(slow, HandClock())
    waiting = [asyncio.create_task(door.admit(None)) for _ in range(50)]
    await asyncio.sleep(0)
    # Whoever asked first goes, and takes nothing from the others.
    waiting[0].cancel()
    await asyncio.sleep(0)
    slow.answers.set()
    assert await asyncio.gather(*waiting[1:]) == [ANYONE] * 49
    assert slow.asked == 1

    await store.create_tenant("acme", 1)
    key, secret = await store.create_key("acme", "ci", ("data",), 1)
    slow.asked = 0
    door = gate(slow, HandClock())
    found = await asyncio.gather(*(door.admit(secret) for _ in range(50)))
    assert {principal.id for principal in found} == {key.id}
    # Whether there are keys, and whose this one is.
    assert slow.asked == 2


async def test_a_database_that_fails_fails_all_who_wait_and_nobody_after(
    store: TenantStore, database: Database
) -> None:
    class Failing(Slow):
        async def has_keys(self) -> bool:
            if not await super().has_keys() and self.asked == 1:
                raise Unavailable("The database does not answer.")
            return False

    failing = Failing(database)
    failing.answers.set()
    door = gate(failing, HandClock())
    told = await asyncio.gather(*(door.admit(None) for _ in range(9)), return_exceptions=True)
    assert [type(each) for each in told] == [Unavailable] * 9
    assert await door.admit(None) == ANYONE


async def test_a_key_ends_and_so_does_a_tenant(store: TenantStore) -> None:
    clock = HandClock(100)
    await store.create_tenant("acme", 1)
    _, ending = await store.create_key("acme", "ends", ("data",), 1, expires_at=200)
    _, lasting = await store.create_key("acme", "lasts", ("data", "admin"), 1)
    door = gate(store, clock, key_cache_secs=0)
    await door.admit(ending)
    clock.at = 200
    with pytest.raises(Unauthenticated):
        await door.admit(ending)
    assert (await door.admit(lasting)).scopes == {"data", "admin"}
    await store.revoke_tenant("acme", 2)
    with pytest.raises(Unauthenticated):
        await door.admit(lasting)


async def test_configured_keys_close_the_server_too(store: TenantStore) -> None:
    key = ConfiguredKey(tenant="acme", name="ci", key=Secret("a-long-enough-key"), scopes=("admin",))
    door = gate(store, HandClock(), keys=(key,))
    assert await door.admit("a-long-enough-key") == Principal("acme", "config:ci", frozenset(["admin"]))
    with pytest.raises(Unauthenticated):
        await door.admit(None)


async def test_what_is_stored_is_not_the_key(store: TenantStore, database: Database) -> None:
    await store.create_tenant("acme", 1)
    _, secret = await store.create_key("acme", "ci", ("data",), 1)
    async with database.reading() as connection:
        row = (await connection.execute(text("SELECT * FROM api_keys"))).mappings().one()
    assert secret not in repr(dict(row))
    assert bytes(row["digest"]) == digest(secret)


async def test_names_are_checked(store: TenantStore) -> None:
    await store.create_tenant("acme", 1)
    with pytest.raises(Conflict):
        await store.create_tenant("acme", 2)
    with pytest.raises(NotFound):
        await store.create_key("nobody", "ci", ("data",), 1)
    with pytest.raises(NotFound):
        await store.revoke_key(f"key_{uuid.uuid4().hex}", 1)
    with pytest.raises(NotFound):
        await store.revoke_tenant("nobody", 1)
    assert [tenant.id for tenant in await store.tenants()] == ["acme"]
    made, _ = await store.create_key("acme", "ci", ("data",), 3)
    assert list(await store.keys("acme")) == [made]
    assert list(await store.keys("other")) == []
