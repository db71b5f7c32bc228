"""A question is durable and answered once, by the one who asked for the call: in memory and in every database."""

import asyncio
import uuid
from typing import Any

import pytest
from sqlalchemy import select

from app.db.engine import Database
from app.mcp.elicitation_store import SqlElicitations
from app.mcp.elicitations import GRACE_SECS, MemoryElicitations
from app.mcp.tables import elicitations
from app.responses.eliciting import Elicitation
from app.turn.errors import GatewayError, NotFound
from app.turn.events import Approved
from app.turn.items import Question, Terms
from tests.contract.mcp_store.test_approvals import Rot
from tests.support.clocks import HandClock

Store = SqlElicitations | MemoryElicitations


@pytest.fixture
def tenant() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def clock() -> HandClock:
    return HandClock(100.0)


@pytest.fixture
def stored(database: Database, clock: HandClock) -> SqlElicitations:
    return SqlElicitations(database, Rot(), clock)


@pytest.fixture(params=["memory", "database"])
def store(request: pytest.FixtureRequest, stored: SqlElicitations, clock: HandClock) -> Store:
    return MemoryElicitations(clock) if request.param == "memory" else stored


def asked(number: int = 1, **changes: Any) -> Elicitation:
    fields: dict[str, Any] = {
        "id": f"mcpe_{number}",
        "principal": "key_1",
        "response_id": "resp_1",
        "server_label": "hotel",
        "tool": "book",
        "arguments": '{"place":"\u00fclm"}',
        "questions": (
            Question("Who?", '{"type":"object"}', id=f"mcpe_{number}"),
            Question("Go.", url="https://x.example", id=f"mcpe_{number}-2"),
        ),
        "state": b"\x00\xffsecret",
        "approved": Approved("mcpr_1", Terms("place", "def", "1")),
        "created_at": 100.0 + number,
        "expires_at": 200.0,
    }
    return Elicitation(**{**fields, **changes})


async def refusal(work: Any) -> str | None:
    with pytest.raises(GatewayError) as refused:
        await work
    return refused.value.code


async def test_what_was_kept_is_found_as_it_was_until_it_is_used(store: Store, tenant: str) -> None:
    await store.open(tenant, [asked(1), asked(2, approved=None)])
    await store.open(tenant, [])
    for _ in range(2):
        assert await store.find(tenant, "mcpe_1", "key_1") == asked(1)
    await store.consume(tenant, "mcpe_1", "key_1")
    for again in (store.find, store.consume):
        assert await refusal(again(tenant, "mcpe_1", "key_1")) == "elicitation_already_answered"
    assert await store.find(tenant, "mcpe_2", "key_1") == asked(2, approved=None)


async def test_to_anybody_else_it_does_not_exist(store: Store, tenant: str) -> None:
    await store.open(tenant, [asked()])
    for whose, who, what in ((tenant, "key_2", "mcpe_1"), (tenant + "x", "key_1", "mcpe_1"), (tenant, "key_1", "x")):
        for way in (store.find, store.consume):
            with pytest.raises(NotFound):
                await way(whose, what, who)
    assert await store.waiting(tenant + "x", limit=9) == []


async def test_it_expires_and_is_forgotten_a_day_later(store: Store, tenant: str, clock: HandClock) -> None:
    await store.open(tenant, [asked(1), asked(2, expires_at=300.0)])
    clock.at = 200.0
    for way in (store.find, store.consume):
        assert await refusal(way(tenant, "mcpe_1", "key_1")) == "elicitation_expired"
    assert [each.elicitation.id for each in await store.waiting(tenant, limit=9)] == ["mcpe_2"]
    await store.sweep()
    assert await refusal(store.find(tenant, "mcpe_1", "key_1")) == "elicitation_expired"
    clock.at = 200.0 + GRACE_SECS
    assert await store.sweep() >= 1
    with pytest.raises(NotFound):
        await store.find(tenant, "mcpe_1", "key_1")


async def test_admins_see_what_waits_the_newest_first(store: Store, tenant: str) -> None:
    await store.open(tenant, [asked(1), asked(2), asked(3)])
    await store.consume(tenant, "mcpe_2", "key_1")
    assert [each.elicitation for each in await store.waiting(tenant, limit=9)] == [asked(3), asked(1)]
    every = await store.waiting(tenant, limit=2, everything=True)
    assert [(each.elicitation.id, each.used) for each in every] == [("mcpe_3", False), ("mcpe_2", True)]


async def test_of_many_at_once_one_gets_it(stored: SqlElicitations, tenant: str) -> None:
    await stored.open(tenant, [asked()])
    work = (stored.consume(tenant, "mcpe_1", "key_1") for _ in range(8))
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    assert outcomes.count(None) == 1
    assert {each.code for each in outcomes if isinstance(each, GatewayError)} == {"elicitation_already_answered"}


async def test_nothing_of_it_lies_open(stored: SqlElicitations, database: Database, tenant: str) -> None:
    await stored.open(tenant, [asked()])
    async with database.reading() as connection:
        row = (await connection.execute(select(elicitations).where(elicitations.c.tenant == tenant))).one()
    lies = " ".join(str(each) for each in row)
    assert row.sealed.startswith(f"{tenant}|elicitations/mcpe_1|".encode())
    assert "Who?" not in lies.replace("?ohW", "")
    assert "secret" not in lies
