"""The books keep what they are told, each tenant's apart, and notice who was faster."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import msgspec
import pytest
from msgspec import structs

from app.db.engine import Database, with_driver
from app.mcp.books import Books, MemoryBooks, Registered, Stale
from app.mcp.definitions import Offer, compare, difference
from app.mcp.rules import Policy, ServerConfig, ServerRules, TenantPolicy, ToolRule
from app.mcp.store import SqlBooks
from app.turn.errors import Conflict, NotFound
from app.turn.items import ToolSpec
from tests.contract.history.conftest import SETTINGS


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def books(request: pytest.FixtureRequest) -> AsyncIterator[Books]:
    if request.param == "memory":
        yield MemoryBooks()
        return
    sqlite = request.param == "sqlite"
    url = f"sqlite:///{request.getfixturevalue('sqlite_path')}" if sqlite else request.getfixturevalue("postgres_url")
    database = Database(with_driver(url), SETTINGS)
    yield SqlBooks(database)
    await database.close()


@pytest.fixture
def tenant() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


def server(tenant: str, label: str = "demo", **changes: object) -> Registered:
    rule = ToolRule(decision="ask", alias="plus", defaults={"a": msgspec.Raw(b'{"x":[1,2]}')})
    config = ServerConfig(url="https://mcp.example/mcp", rules=ServerRules(tools={"add": rule}, trusted=True))
    made = Registered(
        tenant=tenant,
        label=label,
        id=f"srv_{tenant}_{label}",
        version=1,
        config=config,
        enabled=True,
        created_at=1,
        updated_at=1,
    )
    return structs.replace(made, **changes)


async def test_servers_come_back_as_they_were_by_label(books: Books, tenant: str) -> None:
    await books.add(server(tenant, "b"))
    await books.add(server(tenant, "a"))
    await books.add(server(tenant + "x", "c"))
    assert [each.label for each in await books.servers(tenant)] == ["a", "b"]
    assert msgspec.json.encode(await books.server(tenant, "b")) == msgspec.json.encode(server(tenant, "b"))


async def test_a_label_is_given_once_and_each_tenant_has_its_own(books: Books, tenant: str) -> None:
    await books.add(server(tenant))
    with pytest.raises(Conflict):
        await books.add(server(tenant, id="other"))
    await books.add(server(tenant + "x"))
    with pytest.raises(NotFound):
        await books.server(tenant + "y", "demo")


async def test_a_change_takes_the_version_it_was_made_from(books: Books, tenant: str) -> None:
    await books.add(server(tenant))
    await books.change(server(tenant, version=2, enabled=False), expected=1)
    with pytest.raises(Stale):
        await books.change(server(tenant, version=2), expected=1)
    assert (await books.server(tenant, "demo")).enabled is False
    with pytest.raises(NotFound):
        await books.change(server(tenant, "nobody", version=2), expected=1)


async def test_what_is_removed_is_gone_with_its_definitions(books: Books, tenant: str) -> None:
    kept = server(tenant)
    await books.add(kept)
    await books.record(tenant, kept.id, [compare(None, offer("a"), new="accept", now=1)])
    assert (await books.remove(tenant, "demo")).id == kept.id
    assert await books.pins(tenant, kept.id) == {}
    with pytest.raises(NotFound):
        await books.remove(tenant, "demo")


async def test_a_policy_begins_at_nothing_and_counts_up(books: Books, tenant: str) -> None:
    assert await books.policy(tenant) == Policy()
    strict = TenantPolicy(server_urls="deny", keep_arguments=True)
    assert await books.set_policy(tenant, strict, expected=0, now=1) == Policy(1, strict)
    assert await books.policy(tenant) == Policy(1, strict)
    for wrong in (0, 2):
        with pytest.raises(Stale):
            await books.set_policy(tenant, TenantPolicy(), expected=wrong, now=1)
    assert (await books.set_policy(tenant, TenantPolicy(), expected=1, now=1)).version == 2
    assert await books.policy(tenant + "x") == Policy()


def offer(tool: str, description: str = "Does.") -> Offer:
    return Offer(ToolSpec(tool, msgspec.Raw(b'{"type":"object"}'), description=description))


async def test_a_definition_waits_from_its_change_until_it_is_accepted(books: Books, tenant: str) -> None:
    first = compare(None, offer("a"), new="accept", now=1)
    await books.record(tenant, "p", [first, compare(None, offer("b"), new="accept", now=1)])
    pins = await books.pins(tenant, "p")
    assert set(pins) == {"a", "b"}
    assert not pins["a"].waits
    changed = compare(pins["a"], offer("a", "Does more."), new="accept", now=2)
    await books.record(tenant, "p", [changed])
    pin = (await books.pins(tenant, "p"))["a"]
    assert pin.waits
    assert difference(pin) == {"description": {"accepted": "Does.", "seen": "Does more."}}
    with pytest.raises(Stale):
        await books.accept(tenant, "p", "a", first.seen_digest, 3)
    assert not (await books.accept(tenant, "p", "a", changed.seen_digest, 3)).waits
    with pytest.raises(NotFound):
        await books.accept(tenant, "p", "nothing", "x", 3)
    with pytest.raises(NotFound):
        await books.accept(tenant + "x", "p", "a", changed.seen_digest, 3)


async def test_two_who_see_a_tool_first_at_once_do_not_fail(database: Database, tenant: str) -> None:
    books = SqlBooks(database)
    pin = compare(None, offer("a"), new="accept", now=1)
    await asyncio.gather(*(books.record(tenant, "p", [pin]) for _ in range(4)))
    assert set(await books.pins(tenant, "p")) == {"a"}
