"""What runs and their logs promise, on the twin, on SQLite and on PostgreSQL: two owners of one store."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from app.db.engine import Database, with_driver
from app.history.events import SqlEventStore
from app.history.memory import MemoryHistoryStore
from app.history.memory_runs import MemoryRunStore, Shelf
from app.history.runs import SqlRunStore
from app.history.seal import Clear
from app.history.settings import HistorySettings
from app.history.store import SqlHistoryStore
from app.history.tables import runs as table
from app.history.wakes import Wakes
from app.responses.ports import Entry, Event, EventStore, HistoryStore, Lease, LeaseLost, NewRun, OpenRun
from app.turn.errors import Conflict, GatewayError, InvalidRequest, NotFound
from app.turn.events import Elicited, TextDelta, ToolReturned
from app.turn.ids import RandomIds
from app.turn.items import OpaquePart, Question, Text, ToolResult
from tests.contract.history.conftest import SETTINGS
from tests.contract.history.making import response
from tests.support.clocks import HandClock

# Longer than any test: time goes by where a test says so.
LEASE_SECS = 120.0


class Server:
    """One owner: a process, as far as the store can tell."""

    def __init__(self, runs: Any, events: EventStore, history: HistoryStore, clock: HandClock | None = None) -> None:
        self.runs = runs
        self.events = events
        self.history = history
        self._clock = clock

    async def claim(self, tenant: str, *, brief: bool = False) -> list[OpenRun]:
        """What it claims of the tenant's."""
        return [run for run in await self.runs.claim(99, brief=brief) if run.lease.tenant == tenant]

    async def later(self, tenant: str, seconds: float) -> None:
        """Let so much time go by for the tenant's runs."""
        if self._clock is not None:
            self._clock.at += seconds
            return
        sooner = update(table).where(table.c.tenant == tenant).values(expires=table.c.expires - seconds)
        await self.runs._database.transact(lambda connection: connection.execute(sooner))


@pytest.fixture
async def servers(any_url: str | None, patience: float) -> AsyncIterator[list[Server]]:
    """Two processes on one store."""
    settings = HistorySettings(lease_secs=LEASE_SECS, commit_interval_ms=5, poll_secs=0.05, patience_secs=patience)
    if any_url is None:
        shelf, history, clock = Shelf(), MemoryHistoryStore(), HandClock()
        twins = [MemoryRunStore(shelf, history, name, clock.now, LEASE_SECS) for name in "ab"]
        yield [Server(twin, twin, history, clock) for twin in twins]
        return
    found: list[Server] = []
    databases: list[Database] = []
    listening: list[asyncio.Task[None]] = []
    for _ in "ab":
        database = Database(with_driver(any_url), SETTINGS)
        history = SqlHistoryStore(database, RandomIds(), Clear())
        wakes = Wakes(database)
        listening.append(asyncio.create_task(wakes.listen()))
        events = SqlEventStore(database, Clear(), wakes, settings.poll_secs)
        runs = SqlRunStore(database, history, events, Clear(), wakes, settings, uuid.uuid4().hex)
        found.append(Server(runs, events, history))
        databases.append(database)
    yield found
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    for database in databases:
        await database.close()


class Watching:
    """A `Witness` that remembers."""

    def __init__(self) -> None:
        self.told: list[Event] = []
        self.error: GatewayError | None = None

    def durable(self, events: Sequence[Event]) -> None:
        self.told += events

    def broken(self, error: GatewayError) -> None:
        self.error = error


def event(number: int, text: str = "hello") -> Event:
    """An event that says `text`."""
    data = {"type": "response.thing", "sequence_number": number, "t": text}
    return Event(number, "response.thing", msgspec.json.encode(data))


def events(first: int, stop: int) -> list[Event]:
    """Events with these numbers."""
    return [event(number) for number in range(first, stop)]


START = Entry((), tuple(events(0, 2)))


def new(tenant: str, response_id: str = "resp_1", **more: Any) -> NewRun:
    """A run to begin."""
    defaults: dict[str, Any] = {"background": True, "created_at": 1_700_000_000, "request": b"what was asked"}
    return NewRun(tenant=tenant, response_id=response_id, **{**defaults, **more})


async def ids_of(batches: AsyncIterator[Sequence[Event]]) -> list[int]:
    """The numbers of all events."""
    return [each.sequence_number async for batch in batches for each in batch]


async def begun(server: Server, tenant: str, **more: Any) -> tuple[Lease, Any, Watching]:
    """A run that is the server's."""
    lease = await server.runs.begin(new(tenant, **more), START, waiting=False)
    watching = Watching()
    return lease, server.runs.tail(lease, (START,), watching), watching


async def test_what_was_put_is_told_once_it_is_durable_and_comes_back_byte_for_byte(
    servers: list[Server], tenant: str
) -> None:
    lease, tail, watching = await begun(servers[0], tenant)
    odd = event(2, "naïve \U0001f411 \x00 \u2028")
    tail.put(TextDelta("naïve"), [odd])
    await tail.flush()
    assert watching.told == [odd]
    tail.put(TextDelta("more"), events(3, 40))
    await tail.conclude(events(40, 41), response("resp_1"))
    assert watching.told == [odd, *events(3, 41)]
    for server in servers:
        whole = [each async for batch in server.events.follow(tenant, "resp_1") for each in batch]
        assert whole == [*START.events, odd, *events(3, 41)] == list(await server.events.told(tenant, "resp_1"))
        assert await ids_of(server.events.follow(tenant, "resp_1", 17)) == list(range(18, 41))
        assert await ids_of(server.events.follow(tenant, "resp_1", 40)) == []
        assert (await server.history.get(tenant, "resp_1")).status == "completed"
        assert await server.runs.look(tenant, "resp_1") is None
    assert await ids_of(servers[1].events.follow("another tenant", "resp_1")) == []
    assert lease.fence == 1


async def test_the_last_event_is_known_everywhere(servers: list[Server], tenant: str) -> None:
    async def last(name: str = "resp_1", of: str = tenant) -> list[int]:
        return [await server.events.last(of, name) for server in servers]

    assert await last() == [-1, -1]
    _, tail, _ = await begun(servers[0], tenant)
    assert await last() == [1, 1]
    tail.put(TextDelta("a step that tells nothing"), [])
    tail.put(TextDelta("more"), events(2, 300))
    await tail.flush()
    assert await last() == [299, 299]
    await tail.conclude(events(300, 301), response("resp_1"))
    assert await last() == [300, 300]
    assert await last("resp_2") == await last(of=f"{tenant}-other") == [-1, -1]
    await servers[1].history.delete(tenant, "resp_1")
    assert await last() == [-1, -1]


async def test_steps_come_back_as_they_were(servers: list[Server], tenant: str) -> None:
    await servers[0].runs.begin(new(tenant), START, waiting=True)
    (claimed,) = await servers[0].claim(tenant)
    tail = servers[0].runs.tail(claimed.lease, claimed.entries, Watching())
    opaque = OpaquePart("audio", msgspec.Raw(b'{"type": "audio",\n "x": 1}'))
    result = ToolResult("call", (Text("t"), opaque))
    asks = Elicited("call", "mcpe_1", "s", "book", "{}", (Question("Who?", "{}", id="mcpe_1"),))
    for step in (TextDelta("a", msgspec.Raw(b"[1]")), ToolReturned(result), TextDelta("\ud800"), TextDelta("b"), asks):
        tail.put(step, [])
    await tail.flush()
    await servers[0].runs.release(claimed.lease)
    (again,) = await servers[1].claim(tenant)
    found: list[Any] = [step for entry in again.entries for step in entry.steps]
    assert (found[0].text, bytes(found[0].logprobs)) == ("a", b"[1]")
    assert found[1].result.output[0] == Text("t")
    assert msgspec.json.decode(found[1].result.output[1].raw) == {"type": "audio", "x": 1}
    assert found[3:] == [TextDelta("b"), asks]


async def test_followers_everywhere_hear_live(servers: list[Server], tenant: str) -> None:
    _, tail, _ = await begun(servers[0], tenant)
    heard: list[int] = []

    async def listen(server: Server) -> None:
        async for batch in server.events.follow(tenant, "resp_1", 1):
            heard.extend(each.sequence_number for each in batch)

    listening = [asyncio.create_task(listen(server)) for server in (*servers, *servers)]
    for number in range(2, 30):
        tail.put(None, [event(number)])
        await asyncio.sleep(0.003)
    await tail.conclude([event(30)], None)
    async with asyncio.timeout(60):
        await asyncio.gather(*listening)
    assert sorted(heard) == sorted([*range(2, 31)] * 4)
    with pytest.raises(NotFound):
        await servers[0].history.get(tenant, "resp_1")


async def test_a_run_that_waits_is_claimed_by_exactly_one(servers: list[Server], tenant: str) -> None:
    names = {f"resp_{k}" for k in range(12)}
    for name in names:
        await servers[0].runs.begin(new(tenant, name), START, waiting=True)
    state = await servers[1].runs.look(tenant, "resp_3")
    assert (state.waiting, state.background, state.cancelled) == (True, True, False)
    claimed = await asyncio.gather(*(server.claim(tenant) for server in (*servers, *servers)))
    mine = [each for batch in claimed for each in batch]
    assert len(mine) == 12
    assert {each.lease.response_id for each in mine} == names
    assert {(each.request, each.entries, each.lease.fence) for each in mine} == {(b"what was asked", (START,), 1)}
    assert not (await servers[0].runs.look(tenant, "resp_3")).waiting


async def test_a_claim_takes_no_more_than_it_may(servers: list[Server], tenant: str) -> None:
    for k in range(3):
        await servers[0].runs.begin(new(tenant, f"resp_{k}"), START, waiting=True)
    assert not await servers[0].runs.claim(0, brief=False)
    assert len(await servers[0].runs.claim(2, brief=False)) == 2
    await servers[0].runs.claim(99, brief=False)


async def test_a_silent_owner_loses_its_run_and_cannot_write_any_more(servers: list[Server], tenant: str) -> None:
    _, tail, watching = await begun(servers[0], tenant)
    tail.put(None, [event(2)])
    await tail.flush()
    await servers[0].later(tenant, LEASE_SECS / 2)
    assert await servers[1].claim(tenant) == []
    await servers[0].later(tenant, LEASE_SECS)
    (taken,) = await servers[1].claim(tenant)
    assert taken.lease.fence == 2
    assert [each for entry in taken.entries for each in entry.events] == events(0, 3)
    tail.put(None, [event(3, "late")])
    with pytest.raises(LeaseLost):
        await tail.flush()
    assert isinstance(watching.error, LeaseLost)
    with pytest.raises(LeaseLost):
        await tail.conclude([event(4, "late")], response("resp_1"))
    assert watching.told == [event(2)]
    assert tenant not in {each.lease.tenant for each in await servers[0].runs.renew()}
    tail = servers[1].runs.tail(taken.lease, taken.entries, Watching())
    await tail.conclude([event(3)], response("resp_1"))
    assert [each async for batch in servers[0].events.follow(tenant, "resp_1") for each in batch] == events(0, 4)


async def test_a_late_conclusion_stores_nothing(servers: list[Server], tenant: str) -> None:
    lease, tail, _ = await begun(servers[0], tenant)
    await servers[0].runs.release(lease)
    (taken,) = await servers[1].claim(tenant)
    with pytest.raises(LeaseLost):
        await tail.conclude([event(2, "late")], response("resp_1"))
    with pytest.raises(NotFound):
        await servers[0].history.get(tenant, "resp_1")
    await servers[1].runs.tail(taken.lease, taken.entries, Watching()).conclude([event(2)], response("resp_1"))
    assert (await servers[0].history.get(tenant, "resp_1")).id == "resp_1"


async def test_who_comes_late_to_saying_so_does_not_take_over_from_itself(servers: list[Server], tenant: str) -> None:
    await begun(servers[0], tenant)
    await servers[0].later(tenant, LEASE_SECS + 1)
    assert await servers[0].claim(tenant) == []
    held = [each for each in await servers[0].runs.renew() if each.lease.tenant == tenant]
    assert [each.lease.fence for each in held] == [1]
    assert await servers[1].claim(tenant) == []


async def test_who_says_it_is_alive_keeps_its_runs(servers: list[Server], tenant: str) -> None:
    await begun(servers[0], tenant)
    for _ in range(4):
        await servers[0].later(tenant, LEASE_SECS / 2)
        held = [each for each in await servers[0].runs.renew() if each.lease.tenant == tenant]
        assert [(each.lease.response_id, each.cancelled) for each in held] == [("resp_1", False)]
        assert await servers[1].claim(tenant) == []


async def test_only_who_holds_a_run_is_told_its_log_to_write_on(servers: list[Server], tenant: str) -> None:
    lease, tail, _ = await begun(servers[0], tenant)
    tail.put(None, [event(2)])
    await tail.flush()
    entries = await servers[0].runs.log(lease)
    assert [each for entry in entries for each in entry.events] == events(0, 3)
    again = servers[0].runs.tail(lease, entries, Watching())
    await again.conclude([event(3)], response("resp_1"))
    assert await ids_of(servers[1].events.follow(tenant, "resp_1")) == [0, 1, 2, 3]
    with pytest.raises(LeaseLost):
        await servers[0].runs.log(lease)
    held, _, _ = await begun(servers[0], tenant, response_id="resp_2")
    await servers[0].runs.release(held)
    await servers[1].claim(tenant)
    with pytest.raises(LeaseLost):
        await servers[0].runs.log(held)


async def test_a_wish_to_cancel_reaches_the_owner_or_the_next_one(servers: list[Server], tenant: str) -> None:
    await begun(servers[0], tenant, response_id="resp_held")
    await servers[1].runs.begin(new(tenant, "resp_waits"), START, waiting=True)
    resting = asyncio.create_task(servers[0].runs.rest(600))
    await asyncio.sleep(0.05)
    for name in ("resp_held", "resp_waits", "resp_unknown"):
        await servers[0].runs.cancel(tenant, name)
    async with asyncio.timeout(60):
        await resting
    (held,) = [each for each in await servers[0].runs.renew() if each.lease.tenant == tenant]
    assert (held.lease.response_id, held.cancelled) == ("resp_held", True)
    assert await servers[0].claim(tenant) == []
    (ended,) = await servers[0].claim(tenant, brief=True)
    assert (ended.lease.response_id, ended.cancelled) == ("resp_waits", True)


async def test_a_foreground_run_left_behind_is_only_to_be_ended(servers: list[Server], tenant: str) -> None:
    lease, _, _ = await begun(servers[0], tenant, background=False)
    await servers[0].runs.release(lease)
    assert await servers[1].claim(tenant) == []
    (left,) = await servers[1].claim(tenant, brief=True)
    assert (left.background, left.lease.fence) == (False, 2)


async def test_a_conversation_has_one_run_at_a_time_and_is_free_after_it(servers: list[Server], tenant: str) -> None:
    _, tail, _ = await begun(servers[0], tenant, conversation_id="conv_1")
    assert await servers[1].runs.held(tenant, "conv_1")
    with pytest.raises(InvalidRequest) as caught:
        await servers[1].runs.begin(new(tenant, "resp_2", conversation_id="conv_1"), START, waiting=True)
    assert caught.value.code == "conversation_locked"
    await servers[1].runs.begin(new(tenant, "resp_3", conversation_id="conv_2"), START, waiting=True)
    await servers[1].runs.begin(new(f"{tenant}x", "resp_2", conversation_id="conv_1"), START, waiting=True)
    for name in ("resp_4", "resp_5"):
        await servers[1].runs.begin(new(tenant, name), START, waiting=True)
    await tail.conclude([event(2)], response("resp_1"))
    assert not await servers[1].runs.held(tenant, "conv_1")
    await servers[1].runs.begin(new(tenant, "resp_2", conversation_id="conv_1"), START, waiting=True)


async def test_a_run_that_is_not_remembered_holds_its_conversation_and_leaves_nothing(
    servers: list[Server], tenant: str
) -> None:
    holds = new(tenant, background=False, request=None, conversation_id="conv_1")
    lease = await servers[0].runs.begin(holds, None, waiting=False)
    assert await servers[1].runs.held(tenant, "conv_1")
    assert await servers[1].runs.look(tenant, "resp_1") is None
    with pytest.raises(InvalidRequest) as caught:
        await servers[1].runs.begin(new(tenant, "resp_2", conversation_id="conv_1"), START, waiting=False)
    assert caught.value.code == "conversation_locked"
    await servers[0].runs.end(lease)
    assert not await servers[1].runs.held(tenant, "conv_1")


async def test_what_a_dead_server_held_is_taken_away_and_the_dead_cannot(servers: list[Server], tenant: str) -> None:
    holds = new(tenant, background=False, request=None, conversation_id="conv_1")
    lease = await servers[0].runs.begin(holds, None, waiting=False)
    assert await servers[1].claim(tenant, brief=True) == []
    await servers[1].later(tenant, LEASE_SECS + 1)
    (left,) = await servers[1].claim(tenant, brief=True)
    assert (left.request, left.entries) == (None, ())
    await servers[0].runs.end(lease)
    assert await servers[1].runs.held(tenant, "conv_1")
    await servers[1].runs.end(left.lease)
    assert not await servers[1].runs.held(tenant, "conv_1")


async def test_an_id_is_used_once(servers: list[Server], tenant: str) -> None:
    await servers[0].runs.begin(new(tenant), START, waiting=False)
    with pytest.raises(Conflict) as caught:
        await servers[1].runs.begin(new(tenant), START, waiting=False)
    assert caught.value.code != "conversation_locked"


async def test_runs_write_side_by_side(servers: list[Server], tenant: str) -> None:
    tails = [(await begun(servers[k % 2], tenant, response_id=f"resp_{k}"))[1] for k in range(10)]
    for number in range(2, 20):
        for tail in tails:
            tail.put(TextDelta("x"), [event(number)])
        if number % 7 == 0:
            await asyncio.gather(*(tail.flush() for tail in tails))
    await asyncio.gather(*(tail.conclude([event(20)], response(f"resp_{k}")) for k, tail in enumerate(tails)))
    for k in range(10):
        assert await ids_of(servers[1].events.follow(tenant, f"resp_{k}")) == list(range(21))


async def test_a_deleted_response_takes_its_log_along(servers: list[Server], tenant: str) -> None:
    _, tail, _ = await begun(servers[0], tenant)
    await tail.conclude([event(2)], response("resp_1"))
    await servers[0].history.delete(tenant, "resp_1")
    assert await ids_of(servers[0].events.follow(tenant, "resp_1")) == []


async def test_what_cannot_be_stored_is_not_concluded(servers: list[Server], tenant: str) -> None:
    _, tail, watching = await begun(servers[0], tenant)
    with pytest.raises(NotFound):
        await tail.conclude([event(2)], response("resp_1", previous="resp_gone"))
    assert watching.told == []
    await tail.conclude([event(2, "failed")], None)
    assert watching.told == [event(2, "failed")]
