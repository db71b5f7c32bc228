"""Statements handed to the driver as they are: what they give, and that their errors are those of all others."""

from __future__ import annotations

import pytest
from sqlalchemy import bindparam, insert, literal, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.db.engine import Database
from app.db.prepared import Prepared
from app.history.tables import chains, entries

ADD = Prepared(insert(entries), entries.c.keys())
ALL = Prepared(
    select(entries.c.position, entries.c.body, literal("it"))
    .where(entries.c.tenant == bindparam("of"), entries.c.position >= bindparam("low"))
    .order_by(entries.c.position)
)
ADD_CHAIN = Prepared(insert(chains).values(fork_position=literal(3) + bindparam("more")), ["tenant", "id", "parent_id"])


def entry(tenant: str, position: int) -> dict[str, object]:
    return {"tenant": tenant, "response_id": "r", "position": position, "sequence_number": 0, "body": b"\0\xff"}


async def test_rows_are_written_and_read(database: Database, tenant: str) -> None:
    await database.transact(lambda connection: ADD.run_each(connection, [entry(tenant, n) for n in range(3)]))
    await database.transact(lambda connection: ADD.run(connection, entry(tenant, 3)))
    await database.transact(lambda connection: ADD.run_each(connection, []))
    found = await database.look(lambda connection: ALL.run(connection, {"of": tenant, "low": 1}))
    assert [tuple(row) for row in found] == [(n, b"\0\xff", "it") for n in (1, 2, 3)]
    assert await database.look(lambda connection: ALL.value(connection, {"of": tenant, "low": 3})) == 3
    assert await database.look(lambda connection: ALL.value(connection, {"of": tenant, "low": 4})) is None


async def test_a_statement_brings_values_of_its_own(database: Database, tenant: str) -> None:
    row = {"tenant": tenant, "id": "c", "parent_id": None, "more": 4}
    await database.transact(lambda connection: ADD_CHAIN.run(connection, row))
    async with database.reading() as connection:
        assert await connection.scalar(select(chains.c.fork_position).where(chains.c.tenant == tenant)) == 7


@pytest.mark.parametrize("many", [False, True])
async def test_what_fails_is_undone_with_all_of_its_transaction(database: Database, tenant: str, many: bool) -> None:
    def twice(connection) -> None:
        ADD.run(connection, entry(tenant, 0))
        ADD.run_each(connection, [entry(tenant, n) for n in ((1, 0) if many else (0,))])

    with pytest.raises(IntegrityError):
        await database.transact(twice)
    assert await database.look(lambda connection: ALL.run(connection, {"of": tenant, "low": 0})) in ([], ())
    await database.transact(lambda connection: ADD.run(connection, entry(tenant, 0)))


async def test_a_connection_that_breaks_is_replaced(database: Database, tenant: str) -> None:
    if database.is_sqlite:
        pytest.skip("nothing lies between")
    suicide = Prepared(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with pytest.raises(DBAPIError) as failed:
        await database.transact(lambda connection: suicide.run(connection, {}))
    assert failed.value.connection_invalidated
    await database.transact(lambda connection: ADD.run(connection, entry(tenant, 0)))
