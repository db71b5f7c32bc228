"""What rides in a run's ledger is stored with the run's next entry, once, and never got rid of in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Connection, text

from app.history.runs import SqlRunStore
from app.responses.ports import LeaseLost
from app.tenancy.audit import AuditLog, Entry, Filter, Riding
from app.turn.errors import GatewayError, NotFound, Unavailable
from app.turn.events import CallDelta, TextDelta, ToolReturned
from app.turn.items import ToolResult
from tests.contract.history.making import counting, response
from tests.contract.history.test_runs_contract import (
    Server,
    Watching,
    begun,
    event,
    servers,
)

__all__ = ["servers"]


class Note:
    """A rider: a row of the audit log, or a word in a list where there is no database."""

    def __init__(self, tenant: str, tool: str) -> None:
        self.tool = tool
        self.said: list[str] = []
        self.why: GatewayError | None = None
        self._riding = Riding(Entry(tenant=tenant, at=1.0, principal="p", action="call", tool=tool))

    def write(self, transaction: Any) -> None:
        if isinstance(transaction, Connection):
            self._riding.write(transaction)
        else:
            self.said.append(self.tool)

    def lost(self, why: GatewayError) -> None:
        self.why = why


async def until(true: Callable[[], Awaitable[Any]]) -> Any:
    """What `true` returns, once it is true."""
    async with asyncio.timeout(60):
        while not (found := await true()):  # noqa: ASYNC110 - it is a database that changes
            await asyncio.sleep(0.02)
    return found


async def stored(server: Server, tenant: str, notes: list[Note]) -> list[str]:
    """What is written of the notes."""
    if isinstance(server.runs, SqlRunStore):
        log = AuditLog(server.runs._database)
        return [entry.tool for entry in reversed(await log.read(tenant, Filter(), limit=99))]
    return [word for note in notes for word in note.said]


async def test_what_rides_is_stored_with_the_next_entry(servers: list[Server], tenant: str) -> None:
    _, tail, watching = await begun(servers[0], tenant)
    notes = [Note(tenant, name) for name in "abc"]
    assert tail.ride(notes[0])
    await asyncio.sleep(0.05)
    assert await stored(servers[0], tenant, notes) == []
    tail.put(TextDelta("x"), [event(2)])
    await until(lambda: _told(watching, 1))
    assert await stored(servers[0], tenant, notes) == ["a"]
    assert tail.ride(notes[1])
    await tail.flush()
    assert await stored(servers[0], tenant, notes) == ["a", "b"]
    assert tail.ride(notes[2])
    await tail.conclude([event(3)], response("resp_1"))
    assert await stored(servers[0], tenant, notes) == ["a", "b", "c"]
    assert watching.told == [event(2), event(3)] == (await servers[1].events.told(tenant, "resp_1"))[2:]
    # Nothing is written about the run any more.
    assert not tail.ride(Note(tenant, "late"))


async def _told(watching: Watching, count: int) -> bool:
    return len(watching.told) >= count


@pytest.mark.parametrize("concluding", [False, True])
async def test_what_was_done_is_told_of_a_run_that_is_anothers_now(
    servers: list[Server], tenant: str, concluding: bool
) -> None:
    lease, tail, _ = await begun(servers[0], tenant)
    notes = [Note(tenant, "done here")]
    await servers[0].runs.release(lease)
    await servers[1].claim(tenant)
    assert tail.ride(notes[0])
    with pytest.raises(LeaseLost):
        await (tail.conclude([event(2)], response("resp_1")) if concluding else tail.flush())
    assert await until(lambda: stored(servers[0], tenant, notes)) == ["done here"]
    assert not tail.ride(Note(tenant, "late"))
    assert notes[0].why is None


async def test_what_rides_with_a_conclusion_that_fails_rides_with_the_next(servers: list[Server], tenant: str) -> None:
    _, tail, _ = await begun(servers[0], tenant)
    notes = [Note(tenant, "a")]
    assert tail.ride(notes[0])
    with pytest.raises(NotFound):
        await tail.conclude([event(2)], response("resp_1", previous="resp_gone"))
    assert tail.ride(Note(tenant, "b"))
    await tail.conclude([event(2, "failed")], None)
    assert (await stored(servers[0], tenant, notes))[:1] == ["a"]


# ── on a database ─────────────────────────────────────────────────────────────


def _then(run: SqlRunStore, after: Callable[[], None], times: int = 1) -> None:
    """Let the next transactions come to pass, and the word that they did get lost."""
    database: Any = run._database
    whole: Callable[[Any], Awaitable[Any]] = database.transact
    left = times

    async def transact(work: Any) -> Any:
        nonlocal left
        found = await whole(work)
        if left:
            left -= 1
            after()
        return found

    database.transact = transact


def _lose_the_word() -> None:
    raise OSError("the connection was closed")


@pytest.mark.parametrize("concluding", [False, True])
async def test_an_attempt_nobody_heard_of_is_not_made_twice(
    servers: list[Server], tenant: str, concluding: bool
) -> None:
    if not isinstance(servers[0].runs, SqlRunStore):
        pytest.skip("there is no attempt that can get lost")
    _, tail, watching = await begun(servers[0], tenant)
    assert tail.ride(Note(tenant, "once"))
    tail.put(TextDelta("x"), [event(2)])
    _then(servers[0].runs, _lose_the_word)
    await (tail.conclude([event(3)], response("resp_1")) if concluding else tail.flush())
    assert await stored(servers[0], tenant, []) == ["once"]
    assert watching.told == [event(number) for number in range(2, 4 if concluding else 3)]


@pytest.mark.parametrize("patience", [0.3])
@pytest.mark.parametrize("concluding", [False, True])
async def test_what_cannot_be_written_breaks_the_run_and_is_reported(
    servers: list[Server], tenant: str, concluding: bool
) -> None:
    if not isinstance(servers[0].runs, SqlRunStore):
        pytest.skip("there is nothing that cannot be written")

    class Broken(Note):
        def write(self, transaction: Any) -> None:
            transaction.execute(text("INSERT INTO nowhere VALUES (1)"))

    _, tail, watching = await begun(servers[0], tenant)
    broken = Broken(tenant, "x")
    assert tail.ride(broken)
    tail.put(TextDelta("x"), [event(2)])
    with pytest.raises(Unavailable):
        await (tail.conclude([event(3)], response("resp_1")) if concluding else tail.flush())
    assert isinstance(broken.why, Unavailable)
    assert watching.told == []
    assert concluding or isinstance(watching.error, Unavailable)


async def test_a_name_that_no_database_takes_is_written_as_well_as_it_can(servers: list[Server], tenant: str) -> None:
    _, tail, _ = await begun(servers[0], tenant)
    assert tail.ride(Note(tenant, "a\x00b\ud800"))
    await tail.flush()
    if isinstance(servers[0].runs, SqlRunStore):
        assert await stored(servers[0], tenant, []) == ["a\ufffdb\ufffd"]


async def test_a_turn_of_tools_is_one_commit(servers: list[Server], tenant: str) -> None:
    if not isinstance(servers[0].runs, SqlRunStore):
        pytest.skip("there are no commits")
    _, tail, watching = await begun(servers[0], tenant)
    commits = servers[0].runs.journal.commits
    assert tail.ride(Note(tenant, "a"))
    tail.put(ToolReturned(ToolResult("call", "3")), [event(2)])
    tail.put(CallDelta("next", "add", "{}"), [event(3)])
    await tail.flush()
    assert servers[0].runs.journal.commits == commits + 1
    assert await stored(servers[0], tenant, []) == ["a"]
    # Nothing comes of the tool's answer but its own event: it is told all the same.
    tail.put(ToolReturned(ToolResult("next", "4")), [event(4)])
    await until(lambda: _told(watching, 3))


async def test_a_commit_is_few_statements(servers: list[Server], tenant: str) -> None:
    if not isinstance(servers[0].runs, SqlRunStore):
        pytest.skip("there are no statements")
    database = servers[0].runs._database
    _, tail, _ = await begun(servers[0], tenant)
    tail.put(CallDelta("next", "add", "{}"), [event(2)])
    async with counting(database) as statements:
        await tail.flush()
    # On PostgreSQL the first also tells the other processes; beginning and committing are two more round trips.
    mine = [each for each in statements if not each.startswith("BEGIN")]
    assert len(mine) == 2
    assert ("pg_notify" in mine[0]) is not database.is_sqlite
