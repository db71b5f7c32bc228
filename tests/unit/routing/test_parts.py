"""A long prompt is read in parts: short ones pass between them, and nothing is lost or told twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from math import inf

import pytest
from msgspec.structs import replace

from app.responses.ports import RouteKey
from app.routing.cachemap import CacheMap
from app.routing.engine_load import EngineLoad
from app.routing.fleet import WorkerFleet
from app.routing.loads import PartRead, Placement
from app.routing.parts import Parts
from app.routing.placer import Placer, Prompt, Tuning
from app.routing.policies import POLICIES, Ask
from app.routing.ports import PartFate
from app.turn.errors import Failure
from app.turn.events import Hear, TextDelta, TurnDone, TurnEvent, TurnFailed
from app.turn.items import Image, Item, Message, Text, ToolCall, ToolResult
from app.turn.request import Sampling, TurnRequest
from app.turn.usage import Usage
from tests.support.waiting import eventually
from tests.unit.routing.fleet_world import FakeWorker, world

# About 100,000 tokens, and 500.
LONG, SHORT = 400_000, 2_000


def text(request: TurnRequest) -> str:
    return "".join(item.text for item in request.items if isinstance(item, Message))


class Caching(FakeWorker):
    """Reads a prompt when it is let, and keeps it."""

    def __init__(self, *, keeps: bool = True, tells: bool = True) -> None:
        super().__init__()
        self.keeps = keeps
        self.tells = tells
        self.url = ""
        self.read = [""]
        self.came: list[tuple[str, int, int | None]] = []
        self.failures: list[Failure] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def stream(self, request: TurnRequest, hear: Hear | None = None) -> AsyncIterator[TurnEvent]:
        self.served += 1
        prompt = text(request)
        self.came.append((prompt[:1], len(prompt), request.sampling.max_output_tokens))
        try:
            await self.gate.wait()
            if self.failures:
                yield TurnFailed(self.failures.pop(0))
                return
            # A prompt is one letter many times over.
            cached = max(min(len(prompt), len(each)) for each in self.read if each[:1] in ("", prompt[:1]))
            if self.keeps:
                self.read.append(prompt)
            yield TextDelta("hi")
            yield TurnDone("stop", Usage(len(prompt) // 4, cached // 4 if self.tells else 0, 1))
        finally:
            self.closed += 1


def said(size: int, mark: str) -> TurnRequest:
    return TurnRequest(
        model="m", items=(Message("user", (Text(mark * size),)),), sampling=Sampling(max_output_tokens=99)
    )


async def run(fleet: WorkerFleet, asked: TurnRequest) -> list[TurnEvent]:
    async with fleet.lease(RouteKey(tenant="t", model="m"), asked) as backend:
        return [event async for event in backend.stream(asked)]


async def ready(
    *,
    warm: bool = True,
    engines: bool = True,
    part_secs: float = 2.0,
    fates: list[PartFate] | None = None,
    **workers: Caching,
) -> WorkerFleet:
    """Workers that have said, each, that they found a prompt cached, and how loaded they are."""
    there = world(**workers)
    there.parted = [] if fates is None else fates
    fleet = there.fleet(policy="cache_aware", part_secs=part_secs, worker_warmup_secs=0)
    await fleet.ready()
    for name in workers if engines else ():
        fleet.desk.told(f"http://{name}", EngineLoad(0, 0, 0.0), 0, 9.0)
    for name, worker in workers.items() if warm else ():
        asked = said(SHORT, name)
        key = RouteKey(tenant="t", model="m", target=f"http://{name}")
        for _ in range(2):
            async with fleet.lease(key, asked) as backend:
                assert [event async for event in backend.stream(asked)]
        worker.came.clear()
    return fleet


async def reading_long() -> tuple[WorkerFleet, tuple[Caching, Caching], asyncio.Task[list[TurnEvent]]]:
    """Two workers with their gates shut, the one first that was sent the first part of a long turn."""
    a, b = Caching(), Caching()
    fleet = await ready(a=a, b=b)
    a.url, b.url = "http://a", "http://b"
    a.gate.clear()
    b.gate.clear()
    long = asyncio.create_task(run(fleet, said(LONG, "l")))
    await eventually(lambda: a.came + b.came != [])
    return fleet, (a, b) if a.came else (b, a), long


def quiet(fleet: WorkerFleet, *urls: str) -> bool:
    desk = fleet.desk
    return all(desk.held(url) == desk.inflight(url) == fleet.inflight(url) == 0 for url in urls)


async def test_short_turns_pass_between_the_parts_of_a_long_one() -> None:
    worker, fates = Caching(), list[PartFate]()
    fleet = await ready(a=worker, fates=fates)
    worker.gate.clear()
    long = asyncio.create_task(run(fleet, said(LONG, "l")))
    await eventually(lambda: len(worker.came) == 1)
    short = asyncio.create_task(run(fleet, said(SHORT, "s")))
    await eventually(lambda: fleet.desk.held("http://a") == 1)
    worker.gate.set()
    told = await long
    assert await short == [TextDelta("hi"), TurnDone("stop", Usage(SHORT // 4, 0, 1))]
    marks = "".join(mark for mark, _, _ in worker.came)
    assert marks[:2] == "ls"
    assert marks.count("l") > 3
    parts = [each for each in worker.came if each[0] == "l"]
    sizes = [size for _, size, _ in parts]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == LONG
    # Each part says one token, and only the turn itself as many as it may.
    assert [limit for _, _, limit in parts] == [1] * (len(parts) - 1) + [99]
    assert fates == ["read"] * (len(parts) - 1)
    # What was read for this turn was not there before it.
    assert told == [TextDelta("hi"), TurnDone("stop", Usage(LONG // 4, 0, 1))]
    assert quiet(fleet, "http://a")
    assert fleet.chooser.accuracy("http://a") == 1.0


async def test_what_was_cached_before_the_first_part_is_told_as_cached() -> None:
    worker = Caching()
    fleet = await ready(a=worker)
    worker.read.append("l" * 100_000)
    told = await run(fleet, said(LONG, "l"))
    assert told[-1] == TurnDone("stop", Usage(LONG // 4, 25_000, 1))


@pytest.mark.parametrize("how", ["never found anything", "does not tell", "may be a provider", "switched off"])
async def test_it_is_sent_whole(how: str) -> None:
    worker = Caching(tells=how != "does not tell")
    fleet = await ready(
        a=worker,
        warm=how != "never found anything",
        engines=how != "may be a provider",
        part_secs=0.0 if how == "switched off" else 2.0,
    )
    await run(fleet, said(LONG, "l"))
    assert worker.came == [("l", LONG, 99)]


async def test_a_worker_that_came_back_has_to_show_it_anew() -> None:
    worker = Caching()
    fleet = await ready(a=worker)
    fleet.came_back("http://a")
    await run(fleet, said(LONG, "l"))
    assert worker.came == [("l", LONG, 99)]


async def test_the_rest_is_sent_at_once_when_the_worker_does_not_keep_what_it_read() -> None:
    worker, fates = Caching(), list[PartFate]()
    fleet = await ready(a=worker, fates=fates)
    worker.keeps = False
    told = await run(fleet, said(LONG, "l"))
    # Two parts to notice, then all of it.
    assert [limit for _, _, limit in worker.came] == [1, 1, 99]
    assert fates == ["read", "lost"]
    assert told[-1] == TurnDone("stop", Usage(LONG // 4, 0, 1))
    assert quiet(fleet, "http://a")


@pytest.mark.parametrize("status", [400, 502])
async def test_a_part_that_fails_says_nothing_of_the_whole(status: int) -> None:
    worker, fates = Caching(), list[PartFate]()
    fleet = await ready(a=worker, fates=fates)
    worker.failures = [Failure(status, "bad_template", "conversation roles must alternate")]
    assert (await run(fleet, said(LONG, "l")))[-1] == TurnDone("stop", Usage(LONG // 4, 0, 1))
    assert [(size, limit) for _, size, limit in worker.came][-1] == (LONG, 99)
    assert len(worker.came) == 2
    assert fates == ["failed"]
    assert quiet(fleet, "http://a")


async def test_a_worker_that_is_broken_is_left_for_another_one() -> None:
    fleet, (broken, whole), long = await reading_long()
    broken.failures = [Failure(502, "upstream_error", "broken")] * 2
    broken.gate.set()
    whole.gate.set()
    assert (await long)[-1] == TurnDone("stop", Usage(LONG // 4, 0, 1))
    assert [limit for _, _, limit in broken.came] == [1, 99]
    # It begins anew there, for nothing of it is there.
    assert whole.came[0][1] == broken.came[0][1] < LONG
    assert whole.came[-1][1] == LONG
    assert quiet(fleet, "http://a", "http://b")


async def test_when_all_workers_break_over_it_the_failure_is_told() -> None:
    worker = Caching()
    fleet = await ready(a=worker)
    broken = Failure(502, "upstream_error", "broken")
    worker.failures = [broken] * 99
    assert await run(fleet, said(LONG, "l")) == [TurnFailed(broken)]
    assert quiet(fleet, "http://a")


async def test_one_that_goes_down_while_it_reads_is_left_for_another_one() -> None:
    fleet, (first, other), long = await reading_long()
    fleet.registry.put(replace(fleet.worker(first.url), healthy=False))
    fleet.went_down(first.url)
    other.gate.set()
    assert (await long)[-1] == TurnDone("stop", Usage(LONG // 4, 0, 1))
    assert first.closed == first.served
    assert other.came[-1][1] == LONG
    assert quiet(fleet, "http://a", "http://b")


async def test_one_that_was_removed_while_it_read_is_left_for_another_one() -> None:
    fleet, (first, other), long = await reading_long()
    fleet.remove(first.url)
    first.gate.set()
    other.gate.set()
    assert (await long)[-1] == TurnDone("stop", Usage(LONG // 4, 0, 1))
    assert len(first.came) == 1
    assert other.came[-1][1] == LONG


@pytest.mark.parametrize("between", [False, True])
async def test_nobody_reads_on_for_a_turn_that_is_given_up(between: bool) -> None:
    worker = Caching()
    fleet = await ready(a=worker)
    worker.gate.clear()
    long = asyncio.create_task(run(fleet, said(LONG, "l")))
    await eventually(lambda: len(worker.came) == 1)
    others = []
    if between:
        # It waits for its second part behind somebody else's turn.
        others = [asyncio.create_task(run(fleet, said(20 * SHORT, "s")))]
        await eventually(lambda: fleet.desk.held("http://a") == 1)
        worker.gate.set()
        await eventually(lambda: len(worker.came) >= 2)
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)
    worker.gate.set()
    await asyncio.gather(*others)
    assert worker.closed == worker.served
    assert quiet(fleet, "http://a")
    assert (await run(fleet, said(SHORT, "z")))[-1] == TurnDone("stop", Usage(SHORT // 4, 0, 1))


# ── where it is cut ───────────────────────────────────────────────────────────


def user(size: int) -> Message:
    return Message("user", (Text("u" * size),))


def assistant(size: int) -> Message:
    return Message("assistant", (Text("a" * size),))


def cut(items: tuple[Item, ...], share: float) -> tuple[Item, ...] | None:
    part = Parts(TurnRequest(model="m", items=items), 1000).upto(int(1000 * share))
    return None if part is None else part.items


def test_it_is_cut_in_the_middle_of_what_a_user_or_a_tool_said() -> None:
    half = cut((user(100_000),), 0.5)
    assert half is not None
    assert isinstance(half[0], Message)
    assert 49_000 < len(half[0].text) < 51_000
    call, result = ToolCall("c", "f", "{}"), ToolResult("c", "r" * 100_000)
    half = cut((user(10), call, result), 0.5)
    assert half is not None
    assert half[:2] == (user(10), call)
    assert isinstance(half[2], ToolResult)
    assert 49_000 < len(half[2].output) < 51_000


def test_it_is_not_cut_behind_what_the_model_said() -> None:
    assert cut((user(1000), assistant(100_000), user(1000)), 0.5) == (user(1000),)
    assert cut((user(1000), ToolCall("c", "f", "x" * 100_000), ToolResult("c", "r")), 0.5) == (user(1000),)
    assert cut((assistant(100_000), user(1000)), 0.5) is None


def test_an_image_is_there_as_a_whole_or_not_at_all() -> None:
    image = Image("data:image/png;base64," + "A" * 100_000)
    shown = Message("user", (Text("u" * 1000), image, Text("v" * 200_000)))
    assert cut((shown,), 0.2) == (Message("user", (Text("u" * 1000),)),)
    most = cut((shown,), 0.6)
    assert most is not None
    assert isinstance(most[0], Message)
    assert most[0].content[:2] == shown.content[:2]
    assert 0 < len(most[0].text) - 1000 < 100_000


def test_each_part_goes_further_than_the_one_before_or_there_is_none() -> None:
    parts = Parts(TurnRequest(model="m", items=(user(1000), assistant(100_000), user(1000))), 1000)
    assert parts.upto(300) is not None
    assert parts.upto(600) is None


def test_a_part_has_the_tools_and_says_one_token() -> None:
    asked = TurnRequest(model="m", instructions="be brief", items=(user(1000),), sampling=Sampling(temperature=0.5))
    parts = Parts(asked, 1000)
    part = parts.upto(500)
    assert part is not None
    assert (part.instructions, part.sampling) == ("be brief", Sampling(temperature=0.5, max_output_tokens=1))
    assert 0 < parts.read(Usage(600, 1)).upto <= 500


# ── where it pays ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tokens", "under_way", "told", "cut"),
    [
        (100_000, 0, 0.0, True),
        # Less than one and a half parts.
        (10_000, 0, 0.0, False),
        # Of 640,000 tokens that the worker has room for.
        (100_000, 320_000, 0.0, True),
        (100_000, 400_000, 0.0, False),
        # What its engine tells: others have turns there too.
        (100_000, 0, 0.5, True),
        (100_000, 0, 0.6, False),
        # Alone it takes too much.
        (500_000, 0, 0.0, False),
    ],
)
def test_it_is_cut_where_it_is_long_and_there_is_memory(tokens: int, under_way: int, told: float, cut: bool) -> None:
    caches = CacheMap(capacity=10_000, worker_blocks=10_000)
    placer = Placer(caches, Tuning())
    placer.confirm("a", 100, 100)
    placer.told("a", EngineLoad(0, 0, told), 0, 0.0, 60.0)
    load = placer.load("a")
    load.sent(7, 0.0, 0.0, under_way)
    prompt = Prompt(range(tokens // 64), tokens)
    placement = placer.place(POLICIES["cache_aware"], Ask(tokens=tokens), prompt, ("a",), 0.0)
    assert placement.sent_at == 0.0
    assert bool(placement.part) == cut
    assert load.used_tokens == under_way + (placement.part if cut else tokens)
    assert load.backlog(0.0) == pytest.approx(2.0, abs=0.2) if cut else load.backlog(0.0) > 1.0


def test_a_worker_that_tells_has_room_for_what_it_held_when_it_gave_something_up() -> None:
    caches = CacheMap(capacity=10_000, worker_blocks=10)
    exact = caches.tells("a")
    exact.stored(range(200))
    assert exact.capacity == inf
    exact.evicted(range(50))
    assert exact.capacity == 200
    exact.evicted([60])
    assert exact.capacity == 200
    exact.stored(range(300))
    exact.evicted([0])
    assert exact.capacity == 300
    # One that was restarted may have been given less.
    exact.clear()
    assert exact.capacity == inf


def sent_in_parts() -> tuple[Placer, Placement]:
    """A prompt of 96,000 tokens, of which the first part is being read at an idle worker, `a`."""
    placer = Placer(CacheMap(capacity=10_000, worker_blocks=10_000), Tuning())
    placer.confirm("a", 100, 100)
    placer.load("a").tells = True
    prompt = Prompt(range(1_500), 96_000)
    placement = placer.place(POLICIES["cache_aware"], Ask(tokens=96_000), prompt, ("a",), 0.0)
    return placer, placement


def test_what_somebody_else_read_meanwhile_says_nothing_of_how_fast_the_worker_reads() -> None:
    placer, placement = sent_in_parts()
    load = placer.load("a")
    part = placement.part
    placer.part_read(placement, PartRead(part, 0, part, kept=True), load.rate.secs(part, 0))
    before, now = load.rate, 10.0
    assert before.scale == pytest.approx(1.0)
    while placer.release("a", now) == [placement] and placement.part:
        # All of the part was there: it takes no longer than a step.
        upto = placement.cached + placement.part
        placer.part_read(placement, PartRead(upto, upto - 1, 1, kept=True), now + before.secs(1, upto))
        now += 10.0
    # And so is the rest.
    placer.spoke(placement, now + 0.05)
    assert placement.spoken
    assert load.rate.scale == pytest.approx(before.scale, rel=0.01)


def test_a_part_whose_tokens_the_engine_does_not_count_says_nothing_of_how_fast_it_reads() -> None:
    placer, placement = sent_in_parts()
    load = placer.load("a")
    before = load.rate
    placer.part_read(placement, PartRead(placement.part, 0, 0, kept=True), 20.0)
    assert load.rate == before


def test_what_is_left_waits_and_counts_as_begun() -> None:
    placer, placement = sent_in_parts()
    part = placement.part
    placer.part_read(placement, PartRead(part, 0, part, kept=True), 2.0)
    load = placer.load("a")
    assert (placement.cached, load.inflight, len(load.held), load.held.secs) == (part, 0, 1, 0.0)
    assert load.held.rest == placement.secs > 5.0
    # Not even an idle worker takes it over: what it has read is here.
    placer.load("b")
    assert placer.spare(2.0) is None
    assert placer.release("a", 2.0) == [placement]
    assert (placement.sent_at, load.held.rest, placement.part > 0) == (2.0, 0.0, True)
    placer.part_read(placement, PartRead(2 * part, 0, 2 * part, kept=False), 4.0)
    assert placer.release("a", 4.0) == [placement]
    assert placement.part == 0
    placer.ended(placement, 9.0)
    assert (load.inflight, len(load.held), load.backlog(9.0)) == (0, 0, 0.0)
