"""An approval is durable and used once, by the one who asked, with another person's word where that is wanted."""

import asyncio
import uuid

import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.mcp.approval_store import SqlApprovals
from app.mcp.rules import TenantPolicy
from app.mcp.store import SqlBooks
from app.responses.ports import Approval
from app.turn.errors import Conflict, Forbidden, GatewayError, NotFound
from app.turn.items import Terms
from tests.support.clocks import HandClock


class Rot:
    """A sealer that can be seen through, and tells when something was moved."""

    async def ready(self, tenant: str) -> None:
        self.tenant = tenant

    def seal(self, tenant: str, place: str, plain: bytes) -> bytes:
        return f"{tenant}|{place}|".encode() + plain[::-1]

    def open(self, tenant: str, place: str, sealed: bytes) -> bytes:
        head = f"{tenant}|{place}|".encode()
        assert sealed.startswith(head)
        return sealed[len(head) :][::-1]


@pytest.fixture
def tenant() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def clock() -> HandClock:
    return HandClock(100.0)


@pytest.fixture
def store(database: Database, clock: HandClock) -> SqlApprovals:
    return SqlApprovals(database, SqlBooks(database), Rot(), clock)


def approval(number: int = 1, **changes: object) -> Approval:
    fields: dict[str, object] = {
        "id": f"mcpr_{number}",
        "principal": "key_1",
        "response_id": "resp_1",
        "server_label": "bank",
        "tool": "pay",
        "arguments": '{"to":"ann"}',
        "terms": Terms("place", "def", "1"),
        "created_at": 100.0,
        "expires_at": 200.0,
    }
    return Approval(**{**fields, **changes})  # pyright: ignore[reportArgumentType]


async def refusal(work: object) -> str | None:
    with pytest.raises(GatewayError) as refused:
        await work  # pyright: ignore[reportGeneralTypeIssues]
    return refused.value.code


async def test_it_is_given_out_once_also_by_another_process(
    store: SqlApprovals, database: Database, tenant: str, clock: HandClock
) -> None:
    await store.open(tenant, [approval()])
    another = SqlApprovals(database, SqlBooks(database), Rot(), clock)
    used = await another.consume(tenant, "mcpr_1", "key_1", approve=True)
    assert used == approval(approved=True)
    assert await refusal(store.consume(tenant, "mcpr_1", "key_1", approve=True)) == "approval_already_used"
    await store.open(tenant, [])


async def test_of_many_at_once_one_gets_it(store: SqlApprovals, tenant: str) -> None:
    await store.open(tenant, [approval()])
    outcomes = await asyncio.gather(
        *(store.consume(tenant, "mcpr_1", "key_1", approve=True) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(each, Approval) for each in outcomes) == 1
    assert sum(isinstance(each, Conflict) for each in outcomes) == 7


async def test_to_anybody_else_it_does_not_exist(store: SqlApprovals, tenant: str) -> None:
    await store.open(tenant, [approval()])
    for who, whose in (("key_2", tenant), ("key_1", tenant + "x")):
        with pytest.raises(NotFound):
            await store.consume(whose, "mcpr_1", who, approve=True)
    with pytest.raises(NotFound):
        await store.decide(tenant + "x", "mcpr_1", "boss", approve=True)
    assert await store.waiting(tenant + "x", limit=9) == []


async def test_it_expires_no_later_than_the_policy_says(store: SqlApprovals, tenant: str, clock: HandClock) -> None:
    await SqlBooks(store._database).set_policy(tenant, TenantPolicy(approval_secs=10), expected=0, now=0)
    await store.open(tenant, [approval(1), approval(2, expires_at=105.0)])
    clock.at = 105.0
    assert await refusal(store.consume(tenant, "mcpr_2", "key_1", approve=True)) == "approval_expired"
    assert [each.approval.id for each in await store.waiting(tenant, limit=9)] == ["mcpr_1"]
    clock.at = 110.0
    assert await refusal(store.consume(tenant, "mcpr_1", "key_1", approve=True)) == "approval_expired"
    assert await refusal(store.decide(tenant, "mcpr_1", "boss", approve=True)) == "approval_expired"


async def test_a_second_person_has_to_agree(store: SqlApprovals, tenant: str) -> None:
    await SqlBooks(store._database).set_policy(tenant, TenantPolicy(second_person=True), expected=0, now=0)
    await store.open(tenant, [approval(1), approval(2)])
    assert await refusal(store.consume(tenant, "mcpr_1", "key_1", approve=True)) == "approval_pending"
    for nobody_else in ("key_1", ""):
        with pytest.raises(Forbidden):
            await store.decide(tenant, "mcpr_1", nobody_else, approve=True)
    assert (await store.decide(tenant, "mcpr_1", "boss", approve=True)).decided_by == "boss"
    assert await refusal(store.decide(tenant, "mcpr_1", "boss2", approve=False)) == "approval_already_used"
    assert (await store.consume(tenant, "mcpr_1", "key_1", approve=True)).approved is True
    await store.decide(tenant, "mcpr_2", "boss", approve=False)
    assert (await store.consume(tenant, "mcpr_2", "key_1", approve=True)).approved is False


async def test_a_refusal_counts_also_where_nobody_had_to_be_asked(store: SqlApprovals, tenant: str) -> None:
    await store.open(tenant, [approval()])
    await store.decide(tenant, "mcpr_1", "boss", approve=False)
    assert await store.waiting(tenant, limit=9) == []
    assert [each.word for each in await store.waiting(tenant, limit=9, everything=True)] == [False]
    assert (await store.consume(tenant, "mcpr_1", "key_1", approve=True)).approved is False


async def test_the_arguments_are_sealed(store: SqlApprovals, database: Database, tenant: str) -> None:
    await store.open(tenant, [approval(arguments='{"to":"sentinel"}')])
    async with database.reading() as connection:
        rows = await connection.execute(text("SELECT * FROM mcp_approvals WHERE tenant = :t"), {"t": tenant})
        assert "sentinel" not in repr([dict(row) for row in rows.mappings()])
    assert (await store.waiting(tenant, limit=1))[0].approval.arguments == '{"to":"sentinel"}'


# ── calls over /mcp, which wait as themselves ─────────────────────────────────


def served(number: int = 1, **changes: object) -> Approval:
    return approval(number, response_id="", **changes)


async def test_the_same_call_waits_once_and_is_made_once(store: SqlApprovals, tenant: str) -> None:
    first = await store.ask(tenant, served(1), 9)
    assert (first.approval.id, first.word, first.used) == ("mcpr_1", None, False)
    assert (await store.ask(tenant, served(2), 9)).approval.id == "mcpr_1"
    await store.decide(tenant, "mcpr_1", "boss", approve=True)
    found = await asyncio.gather(*(store.ask(tenant, served(number), 9) for number in range(3, 9)))
    assert [each.approval.id for each in found if each.used] == ["mcpr_1"]
    assert all(each.word is None for each in found if not each.used)


@pytest.mark.parametrize(
    "other",
    [
        {"arguments": '{"to":"bob"}'}, {"tool": "pray"}, {"server_label": "church"}, {"principal": "key_2"},
        {"terms": Terms("place", "def", "2")}, {"terms": Terms("place", "fed", "1")}, {"terms": Terms("x", "def", "1")},
    ],
)  # fmt: skip
async def test_another_call_waits_by_itself(store: SqlApprovals, tenant: str, other: dict[str, object]) -> None:
    await store.ask(tenant, served(1), 9)
    await store.decide(tenant, "mcpr_1", "boss", approve=True)
    found = await store.ask(tenant, served(2, **other), 9)
    assert (found.approval.id, found.word, found.used) == ("mcpr_2", None, False)
    assert (await store.ask(tenant + "x", served(3), 9)).approval.id == "mcpr_3"
    assert (await store.ask(tenant, served(4), 9)).used


async def test_a_word_lasts_as_long_as_the_approval(store: SqlApprovals, tenant: str, clock: HandClock) -> None:
    await store.ask(tenant, served(1), 9)
    assert (await store.decide(tenant, "mcpr_1", "boss", approve=False)).word is False
    assert (await store.ask(tenant, served(2), 9)).word is False
    clock.at = 200.0
    found = await store.ask(tenant, served(3, created_at=200.0, expires_at=300.0), 9)
    assert (found.approval.id, found.word) == ("mcpr_3", None)


async def test_nobody_fills_what_others_have_to_read(store: SqlApprovals, tenant: str) -> None:
    for number in range(3):
        await store.ask(tenant, served(number, tool=f"t{number}"), 3)
    assert await refusal(store.ask(tenant, served(9), 3)) == "too_many_approvals"
    assert (await store.ask(tenant, served(10, tool="t1"), 3)).approval.id == "mcpr_1"
    assert (await store.ask(tenant, served(11, principal="key_2"), 3)).approval.id == "mcpr_11"
