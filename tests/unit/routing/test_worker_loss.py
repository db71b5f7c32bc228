"""Workers that fall silent, go down, come back cold, or tell what is not so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.responses.ports import RouteKey
from app.routing.accuracy import Accuracy
from app.routing.breaker import Circuit
from app.routing.eligible import spare_newcomers
from app.routing.registry import Worker
from app.routing.watch import Stalled, Streams
from app.turn.errors import NoWorker
from app.turn.events import Delta, Hear, TextDelta, TurnDone, TurnEvent, TurnFailed
from app.turn.request import TurnRequest
from tests.support.clocks import pass_time, put_forward
from tests.support.waiting import eventually
from tests.unit.routing.fleet_world import FakeWorker, drain, failed, world

KEY = RouteKey(tenant="t", model="m")
REQUEST = TurnRequest(model="m", items=())
ANSWER = [TextDelta("hi"), TurnDone("stop")]


class Silent(FakeWorker):
    """Says `said` events, and then nothing for ever."""

    def __init__(self, said: int) -> None:
        super().__init__()
        self.said = said

    async def stream(self, request: TurnRequest, hear: Hear | None = None) -> AsyncIterator[TurnEvent]:
        self.served += 1
        try:
            for _ in range(self.said):
                yield TextDelta("h")
            await asyncio.Event().wait()
        finally:
            self.closed += 1


async def run(fleet, request: TurnRequest = REQUEST) -> list[TurnEvent]:
    async with fleet.lease(KEY, request) as backend:
        return [event async for event in backend.stream(request)]


async def down(fleet, w, url: str) -> None:
    w.workers[url].up = False
    for _ in range(3):
        await fleet.ready()


async def test_a_turn_that_waits_at_a_worker_that_goes_down_moves_on() -> None:
    w = world(a=Silent(0), b=FakeWorker())
    fleet = w.fleet(policy="passthrough")
    await fleet.ready()
    turn = asyncio.create_task(run(fleet))
    await eventually(lambda: w.workers["http://a"].served == 1)
    await down(fleet, w, "http://a")
    assert await asyncio.wait_for(turn, 30) == ANSWER
    assert w.workers["http://a"].closed == 1
    assert all(fleet.inflight(url) == 0 for url in w.workers)


async def test_to_be_taken_from_a_worker_that_went_down_is_no_retry_and_nobodys_fault() -> None:
    w = world(a=Silent(0), b=Silent(0), c=FakeWorker())
    fleet = w.fleet(policy="passthrough", retry_max_retries=0, cb_failure_threshold=1)
    await fleet.ready()
    turn = asyncio.create_task(run(fleet))
    for url in ("http://a", "http://b"):
        await eventually(lambda url=url: w.workers[url].served == 1)
        await down(fleet, w, url)
    assert await asyncio.wait_for(turn, 30) == ANSWER
    assert all(fleet.circuit(url) is Circuit.CLOSED for url in w.workers)


async def test_a_turn_whose_workers_are_all_down_waits_for_one_that_comes_back() -> None:
    w = world(a=Silent(0), b=FakeWorker(up=False))
    fleet = w.fleet(policy="passthrough", health_check_interval_secs=60, retry_max_backoff_ms=10)
    for _ in range(3):
        await fleet.ready()
    turn = asyncio.create_task(run(fleet))
    await eventually(lambda: w.workers["http://a"].served == 1)
    await down(fleet, w, "http://a")
    # A new turn, as one of a tool loop may be, waits beside it; a new request is told.
    later = asyncio.create_task(run(fleet))
    await eventually(lambda: fleet.inflight("http://a") == 0)
    with pytest.raises(NoWorker):
        fleet.ensure_model("t", "m")
    assert not turn.done()
    assert not later.done()
    w.workers["http://b"].up = True
    await fleet.ready()
    assert await asyncio.wait_for(asyncio.gather(turn, later), 30) == [ANSWER, ANSWER]


async def test_it_does_not_wait_for_ever() -> None:
    w = world(a=Silent(0))
    fleet = w.fleet(health_check_interval_secs=0.05)
    await fleet.ready()
    turn = asyncio.create_task(run(fleet))
    await eventually(lambda: w.workers["http://a"].served == 1)
    await down(fleet, w, "http://a")
    (told,) = await asyncio.wait_for(turn, 30)
    assert isinstance(told, TurnFailed)
    assert told.failure.status == 503
    with pytest.raises(NoWorker):
        await asyncio.wait_for(run(fleet), 30)


async def test_nobody_is_waited_for_where_all_are_drained() -> None:
    w = world(a=FakeWorker(up=False), b=FakeWorker())
    fleet = w.fleet(health_check_interval_secs=1e9)
    await fleet.ready()
    drain(fleet, "http://b")
    fleet.remove("http://a")
    with pytest.raises(NoWorker):
        await asyncio.wait_for(run(fleet), 30)


class Talking(FakeWorker):
    """Says something whenever it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.says: asyncio.Queue[TurnEvent] = asyncio.Queue()

    async def stream(self, request: TurnRequest, hear: Hear | None = None) -> AsyncIterator[TurnEvent]:
        self.served += 1
        while not isinstance(event := await self.says.get(), TurnDone | TurnFailed):
            yield event
        yield event


async def test_a_worker_whose_streams_speak_while_a_probe_waits_is_not_down() -> None:
    w = world(a=Talking())
    talking = w.workers["http://a"]
    fleet = w.fleet(health_check_timeout_secs=30)
    await fleet.ready()
    turn = asyncio.create_task(run(fleet))
    await eventually(lambda: talking.served == 1)
    talking.late = True

    async def probe_while(says: TurnEvent) -> None:
        probes = talking.probes
        probing = asyncio.create_task(fleet.ready())
        await eventually(lambda: talking.probes > probes)
        talking.says.put_nowait(says)
        await eventually(lambda: talking.says.empty() or turn.done())
        await pass_time(30)
        await probing

    for _ in range(3):
        await probe_while(TextDelta("h"))
    assert fleet.registry.get("http://a").healthy

    # What failed is no sign of life.
    for _ in range(3):
        await probe_while(failed()[0])
    assert not fleet.registry.get("http://a").healthy
    await turn


@pytest.mark.parametrize("fault", [{"up": False}, {"refuses": True}])
async def test_a_worker_that_says_no_is_down_whatever_its_streams_say(fault: dict[str, bool]) -> None:
    w = world(a=Talking())
    talking = w.workers["http://a"]
    fleet = w.fleet()
    await fleet.ready()
    turn = asyncio.create_task(run(fleet))
    await eventually(lambda: talking.served == 1)
    for name, value in fault.items():
        setattr(talking, name, value)
    for probes in (2, 3, 4):
        probing = asyncio.create_task(fleet.ready())
        await eventually(lambda probes=probes: talking.probes == probes)
        talking.says.put_nowait(TextDelta("h"))
        await probing
    assert not fleet.registry.get("http://a").healthy
    talking.says.put_nowait(TurnDone("stop"))
    assert isinstance((await asyncio.wait_for(turn, 30))[-1], TurnDone)


async def test_what_a_worker_failed_before_it_was_restarted_is_not_held_against_it() -> None:
    w = world(a=FakeWorker(script=failed()))
    fleet = w.fleet(cb_failure_threshold=1, retry_max_retries=0)
    await fleet.ready()
    await run(fleet)
    await fleet.ready()
    # It was there all the time, and fails turns all the same.
    assert fleet.circuit("http://a") is Circuit.OPEN
    w.workers["http://a"].up = False
    await fleet.ready()
    w.workers["http://a"].up, w.workers["http://a"].script = True, ANSWER
    await fleet.ready()
    assert fleet.circuit("http://a") is Circuit.CLOSED
    assert await run(fleet) == ANSWER


async def test_a_turn_that_falls_silent_mid_sentence_ends_as_failed() -> None:
    w = world(a=Silent(1), b=FakeWorker())
    fleet = w.fleet(policy="passthrough", stream_stall_secs=0.05)
    await fleet.ready()
    events = await asyncio.wait_for(run(fleet), 30)
    assert events[0] == TextDelta("h")
    assert isinstance(events[-1], TurnFailed)
    assert events[-1].failure.code == "upstream_stalled"
    assert w.workers["http://a"].closed == 1
    assert w.workers["http://b"].served == 0


async def test_what_an_engine_told_before_it_was_found_to_be_back_is_not_forgotten() -> None:
    w = world(a=FakeWorker(), b=FakeWorker())
    fleet = w.fleet()
    await fleet.ready()
    for url in w.workers:
        await down(fleet, w, url)
    fleet.desk.caches.tells("http://a").stored([1, 2, 3])
    fleet.desk.caches.view("http://b").sent(0, [1, 2, 3], 0)
    for worker in w.workers.values():
        worker.up = True
    for _ in range(2):
        await fleet.ready()
    assert [worker.healthy for worker in fleet.registry.snapshot.workers] == [True, True]
    assert [fleet.desk.cached_blocks(url) for url in w.workers] == [3, 0]


async def test_a_cancelled_turn_is_cancelled_and_not_stalled() -> None:
    w = world(a=Silent(1))
    fleet = w.fleet(stream_stall_secs=60)
    await fleet.ready()
    turn = asyncio.create_task(run(fleet))
    await eventually(lambda: w.workers["http://a"].served == 1)
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert fleet.inflight("http://a") == 0


async def test_a_watch_allows_any_time_for_the_first_event_and_notes_slow_but_steady_ones() -> None:
    async def steady() -> AsyncIterator[TurnEvent]:
        for pause in (60, 15, 15, 15, 15):
            await pass_time(pause)
            yield TextDelta("h")
        await pass_time(60)
        await asyncio.Event().wait()

    watch, source = Streams().watch(50), steady()
    for _ in range(5):
        assert await watch.next(source) == TextDelta("h")
    with pytest.raises(Stalled):
        await watch.next(source)
    watch.close()


async def test_what_came_while_this_process_stood_still_is_read_before_anybody_is_blamed() -> None:
    queue: asyncio.Queue[TurnEvent] = asyncio.Queue()

    async def stream() -> AsyncIterator[TurnEvent]:
        while True:
            yield await queue.get()

    watch, source = Streams().watch(20), stream()
    queue.put_nowait(TextDelta("h"))
    assert await watch.next(source) == TextDelta("h")
    waiting = asyncio.create_task(watch.next(source))
    await asyncio.sleep(0)
    put_forward(30)
    # What a loop reads comes after its timers.
    asyncio.get_running_loop().call_later(0, queue.put_nowait, TextDelta("i"))
    assert await waiting == TextDelta("i")
    passing = asyncio.create_task(pass_time(30))
    with pytest.raises(Stalled):
        await watch.next(source)
    await passing
    watch.close()


async def test_what_is_heard_counts_as_what_is_read_does_but_the_first_event_is_for_who_reads() -> None:
    heard: list[Delta] = []
    offered: list[bool] = []

    async def talk() -> AsyncIterator[TurnEvent]:
        offered.append(hear(TextDelta("first")))
        yield TextDelta("first")
        for _ in range(4):
            await pass_time(15)
            offered.append(hear(TextDelta("h")))
        await pass_time(60)
        await asyncio.Event().wait()

    def listen(delta: Delta) -> bool:
        heard.append(delta)
        return len(heard) < 4

    streams = Streams()
    watch, source = streams.watch(40), talk()
    hear = watch.hearing(listen)
    assert await watch.next(source) == TextDelta("first")
    began = asyncio.get_running_loop().time()
    with pytest.raises(Stalled):
        await watch.next(source)
    # The last was not taken, and is as good as not come. Alone, the first would have been enough for 40 s.
    assert offered == [False, True, True, True, False]
    assert 80 < asyncio.get_running_loop().time() - began < 95
    assert (len(heard), streams.heard) == (4, 4)
    watch.close()


async def test_a_leased_turn_yields_its_first_event_and_has_the_others_heard() -> None:
    w = world(a=FakeWorker(script=[TextDelta("a"), TextDelta("b"), TextDelta("c"), TurnDone("stop")]))
    fleet = w.fleet()
    await fleet.ready()
    heard: list[Delta] = []
    request = TurnRequest(model="m", items=())
    for whole, expected in ((False, "bc"), (True, "")):
        heard.clear()
        async with fleet.lease(RouteKey(tenant="t", model="m", whole=whole), request) as backend:
            read = [event async for event in backend.stream(request, lambda delta: not heard.append(delta))]
        assert [each.text for each in heard if isinstance(each, TextDelta)] == list(expected)
        assert read == [each for each in w.workers["http://a"].script if each not in heard]


def worker(name: str, healthy_at: float) -> Worker:
    return Worker(id=name, url=name, healthy=True, healthy_at=healthy_at)


def test_a_newcomer_gets_its_share() -> None:
    old, new = worker("old", 0.0), worker("new", 95.0)
    load = {"old": 20, "new": 4}

    def eligible(now: float) -> list[str]:
        return [each.id for each in spare_newcomers([old, new], load.__getitem__, now, 60.0, 0.25)]

    assert eligible(100.0) == ["old", "new"]
    load["new"] = 5
    assert eligible(100.0) == ["old"]
    assert eligible(155.0) == ["old", "new"]


def test_newcomers_among_themselves_and_at_an_idle_fleet_are_used() -> None:
    pair = [worker("a", 99.0), worker("b", 99.0)]
    assert spare_newcomers(pair, lambda _: 9, 100.0, 60.0, 0.25) == pair
    idle = [worker("a", 0.0), worker("b", 99.0)]
    assert list(spare_newcomers(idle, lambda _: 0, 100.0, 60.0, 0.25)) == idle


def test_what_an_engine_never_reports_is_held_against_nobody() -> None:
    accuracy = Accuracy()
    for _ in range(100):
        assert not accuracy.observe(1000, 0)
    assert accuracy.ratio == 1.0
    for _ in range(100):
        assert accuracy.observe(1000, 600)
    assert 0.58 < accuracy.ratio < 0.62
