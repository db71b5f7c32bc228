"""The prefix cache: what was seen is held, prefixes only, the oldest goes first and tails before heads."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from app.simulator.cache import PrefixCache
from app.simulator.engine import Engine
from app.simulator.settings import SimulatorSettings
from app.simulator.tokens import tokens_of

SEQUENCE = st.lists(st.integers(0, 2), max_size=12)


def held(cache: PrefixCache, *tokens: int) -> int:
    return cache.match(cache.keys(tokens_of(tokens)))


@given(st.lists(SEQUENCE, max_size=8), SEQUENCE)
def test_with_room_a_match_is_the_longest_common_prefix_of_anything_stored(
    stored: Sequence[Sequence[int]], asked: Sequence[int]
) -> None:
    cache = PrefixCache(2, 1000)
    for each in stored:
        cache.store(cache.keys(tokens_of(each)))

    def common(one: Sequence[int], other: Sequence[int]) -> int:
        blocks = 0
        while 2 * blocks + 2 <= min(len(one), len(other)) and one[: 2 * blocks + 2] == other[: 2 * blocks + 2]:
            blocks += 1
        return blocks

    assert held(cache, *asked) == max((common(each, asked) for each in stored), default=0)


@given(st.lists(SEQUENCE, max_size=20), st.integers(0, 6))
def test_changes_say_what_is_held_and_it_always_fits(sequences: Sequence[Sequence[int]], capacity: int) -> None:
    cache, told = PrefixCache(2, capacity), set[int]()
    for each in sequences:
        change = cache.store(cache.keys(tokens_of(each)))
        assert not told & set(change.stored)
        told |= set(change.stored)
        assert set(change.removed) <= told
        told -= set(change.removed)
        assert len(cache) == len(told) <= capacity
    for each in sequences:
        keys = cache.keys(tokens_of(each))
        assert cache.match(keys) == next((n for n, key in enumerate(keys) if key not in told), len(keys))


def test_the_tail_goes_before_the_head_and_what_is_used_stays() -> None:
    cache = PrefixCache(1, 4)
    cache.store(cache.keys(tokens_of([1, 2, 3])))
    cache.store(cache.keys(tokens_of([7, 8])))
    assert (held(cache, 1, 2, 3), held(cache, 7, 8)) == (2, 2)
    cache.store(cache.keys(tokens_of([1])))
    cache.store(cache.keys(tokens_of([9, 9])))
    assert (held(cache, 1, 2), held(cache, 7, 8), held(cache, 9, 9)) == (1, 1, 2)


def test_a_block_is_known_with_everything_before_it() -> None:
    cache = PrefixCache(2, 100)
    cache.store(cache.keys(tokens_of([1, 1, 2, 2])))
    assert held(cache, 2, 2) == 0


async def generate(engine: Engine, prompt: Sequence[int], answer: Sequence[int]) -> int:
    work = await engine.start(tokens_of(prompt), tokens_of(answer))
    async for _ in work.ready():
        pass
    return work.cached_tokens


async def test_the_engine_remembers_prompts_and_answers_but_computes_the_last_token() -> None:
    engine = Engine(SimulatorSettings(block_size=2))
    assert await generate(engine, [1, 2, 3, 4], [5, 6]) == 0
    assert await generate(engine, [1, 2, 3, 4], [5, 6]) == 2
    assert await generate(engine, [1, 2, 3, 4, 5, 6, 7], [8]) == 6
    assert await generate(engine, [9, 2, 3, 4], [5]) == 0


async def test_an_answer_that_was_not_generated_is_not_cached() -> None:
    engine = Engine(SimulatorSettings(block_size=2, token_ms=60_000))
    async for ready in (await engine.start(tokens_of([1, 2]), tokens_of([3, 4, 5, 6]))).ready():
        assert ready == 1
        break
    assert await generate(engine, [1, 2, 3, 4, 5], []) == 2


async def test_without_room_nothing_is_cached() -> None:
    engine = Engine(SimulatorSettings(block_size=2, cache_tokens=0))
    assert [await generate(engine, [1, 2, 3], [4]) for _ in range(2)] == [0, 0]
