"""The engine whose requests share it: the model as a value, and performed in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.simulator.batch import BatchEngine, BatchWork, Stored
from app.simulator.service import Request, ServiceEngine, ServiceModel
from app.simulator.settings import SimulatorSettings
from app.simulator.tokens import tokens_of

MODEL = ServiceModel(step=1.0, token=0.1, pair=0.0, sequence=0.0, context=0.0, chunk=10, blocks=8, block_tokens=4)


def run(engine: ServiceEngine, *requests: Request) -> list[tuple[float, list[int], list[int]]]:
    """(time, who spoke, who ended) of each step in which somebody did, until nothing is left to do."""
    for request in requests:
        engine.submit(request)
    now, seen = 0.0, list[tuple[float, list[int], list[int]]]()
    while engine.busy:
        secs = engine.begin()
        now += secs
        step = engine.finish(secs)
        if step.first or step.ended:
            seen.append((round(now, 3), [r.number for r in step.first], [r.number for r in step.ended]))
    return seen


def test_prompts_are_read_in_chunks_first_come_first_served_and_written_together() -> None:
    first, second = Request(0, 0.0, 15, 2, (1, 2, 3)), Request(1, 0.0, 5, 3, (9,))
    # 10 tokens; then 5 and 5; then one step for both, and one for the second.
    assert run(ServiceEngine(MODEL), first, second) == [
        (4.0, [0, 1], []),
        (5.0, [], [0]),
        (6.0, [], [1]),
    ]


def test_what_is_cached_is_not_read_again_but_for_the_last_token() -> None:
    engine = ServiceEngine(MODEL)
    run(engine, Request(0, 0.0, 8, 1, (1, 2)))
    again = Request(1, 0.0, 8, 1, (1, 2))
    assert run(engine, again) == [(1.1, [1], [1])]
    assert again.cached == 7


def test_answers_are_cached_once_they_are_written() -> None:
    engine = ServiceEngine(MODEL)
    run(engine, Request(0, 0.0, 4, 4, (1,), (1, 2)))
    assert engine.match((1, 2)) == 2


def test_the_least_recently_used_goes_first_its_tail_before_its_head() -> None:
    engine = ServiceEngine(MODEL)
    run(engine, Request(0, 0.0, 16, 1, (1, 2, 3, 4)))
    run(engine, Request(1, 0.0, 8, 1, (5, 6)))
    # Four blocks of prompt and one for the answer: three have to go.
    run(engine, Request(2, 0.0, 16, 1, (7, 8, 9, 10)))
    assert (engine.match((1, 2, 3, 4)), engine.match((5, 6)), engine.match((7, 8, 9, 10))) == (1, 2, 4)


def test_who_does_not_fit_waits() -> None:
    engine = ServiceEngine(MODEL)
    big, small = Request(0, 0.0, 20, 8, (1, 2, 3, 4, 5)), Request(1, 0.0, 4, 4, (9,))
    spoken = [spoke for _, spoke, _ in run(engine, big, small)]
    assert spoken.index([1]) > spoken.index([0])
    assert engine.use == 0


def test_who_left_gives_everything_back() -> None:
    engine = ServiceEngine(MODEL)
    stays = Request(9, 0.0, 4, 30, (30,))
    leaving = [Request(number, 0.0, 8, 20, (10 * number, 10 * number + 1)) for number in range(3)]
    for request in (stays, *leaving):
        engine.submit(request)
    engine.finish(engine.begin())
    engine.finish(engine.begin())
    for request in leaving:
        engine.cancel(request)
        engine.cancel(request)
    while engine.busy:
        engine.finish(engine.begin())
    assert engine.use == 0
    assert engine.contexts == 0


def quick(**more: object) -> SimulatorSettings:
    return SimulatorSettings(engine="batch", block_size=4, step_ms=1, prompt_token_us=10, cache_tokens=400, **more)


async def generate(engine: BatchEngine, prompt: Sequence[int], answer: Sequence[int]) -> tuple[int, list[int]]:
    work = await engine.start(tokens_of(prompt), tokens_of(answer))
    return work.cached_tokens, [ready async for ready in work.ready()]


async def test_it_tells_what_came_and_what_went() -> None:
    told: list[tuple[Sequence[Stored], Sequence[int]]] = []
    engine = BatchEngine(quick(), lambda stored, removed: told.append((stored, removed)))
    cached, ready = await generate(engine, range(10), [50, 51, 52])
    assert (cached, ready[-1]) == (0, 3)
    assert (await generate(engine, range(10), [60]))[0] == 8
    runs = [run for stored, _ in told for run in stored]
    assert [(len(run.keys), run.parent is None, run.tokens.tolist()) for run in runs] == [
        (2, True, list(range(8))),
        (1, False, [8, 9, 50, 51]),
    ]
    assert runs[1].parent == runs[0].keys[-1]
    held = {key for run in runs for key in run.keys}
    for number in range(5):
        await generate(engine, range(100 * number, 100 * number + 200), [1])
    gone = {key for _, removed in told for key in removed}
    assert held <= gone


async def test_requests_share_it_and_a_cancelled_one_makes_room() -> None:
    engine = BatchEngine(quick())

    async def start(first: int) -> BatchWork:
        return await engine.start(tokens_of(range(first, first + 300)), tokens_of(range(80)))

    holder = await start(0)
    waiting = asyncio.create_task(start(1000))
    also = asyncio.create_task(start(2000))
    while engine.occupied().waiting < 2:  # noqa: ASYNC110 - nobody tells us
        await asyncio.sleep(0)
    stream = holder.ready()
    # Few of the steps that it has memory for, however late they are made.
    for _ in range(3):
        assert await anext(stream) >= 1
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stream.aclose()
    async with asyncio.timeout(30):
        assert [ready async for ready in (await also).ready()][-1] == 80
    assert engine.service.use == 0
