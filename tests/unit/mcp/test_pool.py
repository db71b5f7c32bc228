"""Who shares a session, how long one lives, and what happens when there are too many."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from app.mcp.client import Link
from app.mcp.failure import McpFailure, broken
from app.mcp.servers import Target
from app.mcp.sessions import Owner, Pool
from app.mcp.settings import McpSettings
from tests.support.clocks import put_forward
from tests.support.waiting import eventually


class Wire:
    """A link without a server, and how often one was opened and closed."""

    def __init__(self, *, stateless: bool = False) -> None:
        self.stateless = stateless
        self.protocol = "test"
        self.gone = False
        self.opened = 0
        self.closed = 0
        self.hold: asyncio.Event | None = None
        self.fault: Exception | None = None

    @asynccontextmanager
    async def connect(self, _target: Target) -> AsyncIterator[Link]:
        if self.hold is not None:
            await self.hold.wait()
        if self.fault is not None:
            raise self.fault
        self.opened += 1
        try:
            yield cast("Link", self)
        finally:
            self.closed += 1


def target(label: str = "s", **changes: Any) -> Target:
    fields: dict[str, Any] = {
        "url": f"http://{label}.example/mcp",
        "env": {},
        "headers": {},
        "origin": "request",
        "place": label,
    }
    return Target(label=label, **{**fields, **changes})


@asynccontextmanager
async def pool(wire: Wire, **settings: Any) -> AsyncIterator[Pool]:
    made = Pool(McpSettings(**settings), wire.connect)
    try:
        yield made
    finally:
        await made.close()


async def touch(made: Pool, tenant: str, where: Target, conversation: str | None, principal: str = "p") -> int:
    async with made.lease(Owner(tenant, principal), where, conversation) as (session, _link):
        return id(session)


async def test_one_conversation_keeps_its_session() -> None:
    wire = Wire()
    async with pool(wire) as made:
        assert await touch(made, "t", target(), "c") == await touch(made, "t", target(), "c")
        assert wire.opened == 1
    assert wire.closed == 1


@pytest.mark.parametrize(
    ("tenant", "where", "conversation"),
    [
        ("other", target(), "c"),
        ("t", target(), "d"),
        ("t", target("else"), "c"),
        ("t", target(headers={"authorization": "Bearer 2"}), "c"),
        ("t", target(env={"KEY": "2"}), "c"),
        ("t", target(version="2"), "c"),
    ],
)
async def test_nothing_is_shared_across_tenants_credentials_or_conversations(
    tenant: str, where: Target, conversation: str
) -> None:
    wire = Wire()
    async with pool(wire) as made:
        assert await touch(made, "t", target(), "c") != await touch(made, tenant, where, conversation)
        assert wire.opened == 2


async def test_nothing_is_shared_between_principals() -> None:
    wire = Wire(stateless=True)
    async with pool(wire) as made:
        first = await touch(made, "t", target(), "c", "ann")
        assert await touch(made, "t", target(), "c", "ben") != first
        assert await touch(made, "t", target(), "c", "ann") == first


async def test_revoking_retires_whose_it_is_and_no_other() -> None:
    wire = Wire()
    async with pool(wire) as made:
        ann, ben = await touch(made, "t", target(), "c", "ann"), await touch(made, "t", target(), "c", "ben")
        other = await touch(made, "u", target(), "c", "ann")
        made.retire("t", "s", "ann")
        assert await touch(made, "t", target(), "c", "ann") != ann
        assert await touch(made, "t", target(), "c", "ben") == ben
        made.retire("t", "s")
        assert await touch(made, "t", target(), "c", "ben") != ben
        assert await touch(made, "u", target(), "c", "ann") == other


async def test_a_stateless_server_has_one_session_for_all_conversations_of_a_tenant() -> None:
    wire = Wire(stateless=True)
    async with pool(wire) as made:
        first = await touch(made, "t", target(), "c")
        assert await touch(made, "t", target(), "d") == first
        assert await touch(made, "other", target(), "c") != first


async def test_many_wait_for_one_opening() -> None:
    wire = Wire()
    wire.hold = asyncio.Event()
    async with pool(wire) as made:
        waiting = [asyncio.create_task(touch(made, "t", target(), "c")) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        wire.hold.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert len({await each for each in waiting[1:]}) == 1
        assert wire.opened == 1


async def test_a_failed_opening_is_everyones_answer_and_is_not_kept() -> None:
    wire = Wire()
    wire.fault = broken("no")
    async with pool(wire) as made:
        waiting = [asyncio.create_task(touch(made, "t", target(), "c")) for _ in range(3)]
        for each in waiting:
            with pytest.raises(McpFailure):
                await each
        wire.fault = None
        await touch(made, "t", target(), "c")
        assert wire.opened == 1


async def test_the_least_recently_used_makes_room() -> None:
    wire = Wire()
    async with pool(wire, max_sessions_per_tenant=2) as made:
        first = await touch(made, "t", target(), "a")
        await touch(made, "t", target(), "b")
        await touch(made, "t", target(), "c")
        assert len(made) == 2
        assert await touch(made, "t", target(), "a") != first


async def test_sessions_in_use_make_no_room() -> None:
    async with pool(Wire(), max_sessions_per_tenant=1) as made, made.lease(Owner("t"), target(), "a"):
        with pytest.raises(McpFailure, match="Too many"):
            await touch(made, "t", target(), "b")
        await touch(made, "other", target(), "b")


async def test_the_total_is_bounded_too() -> None:
    async with pool(Wire(), max_sessions=2) as made:
        for tenant in ("a", "b", "c"):
            await touch(made, tenant, target(), None)
        assert len(made) == 2


async def test_nobody_uses_it_and_it_closes() -> None:
    wire = Wire()
    async with pool(wire, session_idle_secs=0.05) as made:
        await touch(made, "t", target(), "c")
        await eventually(lambda: wire.closed == 1)
        assert len(made) == 0


async def test_an_old_one_is_replaced_but_not_under_a_call() -> None:
    wire = Wire()
    async with pool(wire, session_max_age_secs=60, session_idle_secs=3600) as made:
        async with made.lease(Owner("t"), target(), "c") as (old, _link):
            put_forward(60)
            async with made.lease(Owner("t"), target(), "c") as (new, _new_link):
                assert new is not old
            assert wire.closed == 0
        await eventually(lambda: wire.closed == 1)


async def test_a_closed_pool_opens_nothing() -> None:
    made = Pool(McpSettings(), Wire().connect)
    await made.close()
    with pytest.raises(McpFailure, match="shutting down"):
        await touch(made, "t", target(), "c")
