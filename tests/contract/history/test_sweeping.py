"""What has expired is forgotten: nothing before its time, nothing that others need, and nothing is left beside it."""

from __future__ import annotations

import uuid

import pytest
import sqlalchemy as sa
from msgspec import structs

from app.db.engine import Database
from app.history.conversations import SqlConversationStore
from app.history.seal import Clear
from app.history.store import SqlHistoryStore
from app.history.sweeper import BATCH, Sweeper
from app.history.tables import entries, runs
from app.mcp.tables import approvals
from app.responses.stores import Conversation
from app.turn.errors import NotFound
from app.turn.ids import RandomIds
from tests.contract.history.making import build, counts, ids, item, response

# Far from what other tests leave in the same database.
BASE = 2**40


class Hands:
    """A clock that is turned by hand."""

    time: float = BASE

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def talks(database: Database) -> SqlConversationStore:
    return SqlConversationStore(database, RandomIds(), Clear())


@pytest.fixture
def sweeper(database: Database, sql_store: SqlHistoryStore, talks: SqlConversationStore, clock: Hands) -> Sweeper:
    return Sweeper(database, sql_store, talks, clock, (approvals,))


async def insert(database: Database, table: sa.Table, **values: object) -> None:
    async with database.writing() as connection:
        await connection.execute(sa.insert(table), values)


async def approval(database: Database, tenant: str, response_id: str, expires_at: float) -> None:
    """A call of the response's that waits, or waited."""
    values = {
        column.name: "-" for column in approvals.c if not column.nullable and isinstance(column.type, sa.Text)
    } | {"created_at": 1.0, "second_person": False, "arguments": b"-"}
    named = {"id": f"mcpr_{uuid.uuid4().hex}", "tenant": tenant, "response_id": response_id, "expires_at": expires_at}
    await insert(database, approvals, **values | named)


async def waiting(database: Database, tenant: str) -> set[str]:
    """The responses that have approvals."""
    async with database.reading() as connection:
        return set(await connection.scalars(sa.select(approvals.c.response_id).where(approvals.c.tenant == tenant)))


async def test_what_has_expired_is_forgotten_and_its_children_keep_their_context(
    sql_store: SqlHistoryStore, sweeper: Sweeper, database: Database, tenant: str, clock: Hands
) -> None:
    for k, expires in enumerate((BASE + 10, BASE + 20, None)):
        previous = f"r{k - 1}" if k else None
        await sql_store.save(tenant, structs.replace(response(f"r{k}", previous), expires_at=expires))
    clock.time = BASE + 9
    await sweeper.sweep()
    assert (await counts(database, tenant))[2] == 3
    clock.time = BASE + 10
    assert await sweeper.sweep() == 1
    with pytest.raises(NotFound):
        await sql_store.get(tenant, "r0")
    assert len(await sql_store.context(tenant, "r2")) == 9
    clock.time = BASE + 100_000_000
    assert await sweeper.sweep() == 1
    assert (await counts(database, tenant))[2] == 1


async def test_a_conversation_goes_with_what_was_said_in_it(
    sql_store: SqlHistoryStore, talks: SqlConversationStore, sweeper: Sweeper, database: Database, tenant: str
) -> None:
    for name, expires_at in (("ends", BASE), ("stays", None), ("later", BASE + 1)):
        made = Conversation(id=name, created_at=1, metadata={}, expires_at=expires_at)
        await talks.create(tenant, made, [item(f"{name}_first")])
        assert (await talks.context(tenant, name)).expires_at == expires_at
        assert (await talks.update(tenant, name, {"k": "v"})).expires_at == expires_at
        spoken = structs.replace(response(f"in_{name}"), conversation_id=name, joins=True, expires_at=expires_at)
        await sql_store.save(tenant, spoken)
    await sweeper.sweep()
    with pytest.raises(NotFound):
        await talks.get(tenant, "ends")
    with pytest.raises(NotFound):
        await sql_store.get(tenant, "in_ends")
    for name in ("stays", "later"):
        assert len((await talks.context(tenant, name)).items) == 4
    assert await counts(database, tenant) == (2, 8, 2)


async def test_a_conversation_that_a_response_is_made_in_waits_for_it(
    talks: SqlConversationStore, sweeper: Sweeper, database: Database, tenant: str
) -> None:
    for k in range(3):
        made = Conversation(id=f"c{k}", created_at=1, metadata={}, expires_at=BASE - 3 + k)
        await talks.create(tenant, made, [item(f"c{k}_first")])
    run = {"fence": 1, "expires": 0.0, "background": False, "cancelled": False, "created_at": 1, "request": b"-"}
    await insert(database, runs, **run, tenant=tenant, id="run", conversation_id="c0")
    await sweeper.sweep()
    assert [each.id for each in (await talks.listed(tenant, limit=9, order="asc", after=None)).data] == ["c0"]
    async with database.writing() as connection:
        await connection.execute(sa.delete(runs).where(runs.c.tenant == tenant))
    await sweeper.sweep()
    assert not (await talks.listed(tenant, limit=9, order="asc", after=None)).data


async def test_approvals_go_with_their_response_and_not_before_their_time(
    sql_store: SqlHistoryStore, sweeper: Sweeper, database: Database, tenant: str
) -> None:
    await sql_store.save(tenant, structs.replace(response("gone"), expires_at=BASE))
    await sql_store.save(tenant, response("there"))
    for name, expires_at in (("gone", BASE - 1.0), ("there", BASE - 1.0), ("never", BASE + 0.5), ("once", BASE - 0.5)):
        await approval(database, tenant, name, expires_at)
    await sweeper.sweep()
    # One of a response that is there is part of the record; one of a response nobody stored can still be given.
    assert await waiting(database, tenant) == {"there", "never"}


async def test_a_log_without_a_response_goes_and_many_of_anything_do(
    sql_store: SqlHistoryStore, sweeper: Sweeper, database: Database, tenant: str
) -> None:
    await sweeper.sweep_logs()
    await build(sql_store, tenant, {"kept": None})
    for name in ("kept", *(f"lost{k}" for k in range(BATCH + 1))):
        await insert(database, entries, tenant=tenant, response_id=name, position=0, sequence_number=0, body=b"-")
    for k in range(BATCH + 1):
        await sql_store.save(tenant, structs.replace(response(f"r{k}", given=0, made=1), expires_at=BASE))
    assert await sweeper.sweep() == BATCH + 1
    assert await sweeper.sweep_logs() == BATCH + 1
    async with database.reading() as connection:
        left = await connection.scalars(sa.select(entries.c.response_id).where(entries.c.tenant == tenant))
        assert list(left) == ["kept"]
    assert ids(await sql_store.context(tenant, "kept")) == ["kept_i0", "kept_o0", "kept_o1"]
