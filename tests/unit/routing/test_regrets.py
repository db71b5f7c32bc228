"""What caches give up too early is noticed, and what is read where they do is dearer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from app.routing.admin import FleetAdmin
from app.routing.cache_events import Hearing
from app.routing.cachemap import CacheMap, Exact
from app.routing.kv_events.words import Batch, Cleared, Removed, Stored, Told
from app.routing.placer import Placer, Prompt, Tuning
from app.routing.policies import POLICIES, Ask
from app.routing.regrets import Regrets
from app.routing.tokens import GRANULE
from tests.unit.routing.fields import a_field
from tests.unit.routing.fleet_world import FakeWorker, world


def keys(first: int, count: int) -> list[int]:
    """So many keys of those that are looked at."""
    return [16 * number for number in range(first, first + count)]


def two() -> Regrets:
    regrets = Regrets()
    regrets.begin(0)
    regrets.begin(1)
    return regrets


def test_what_is_asked_for_again_was_given_up_too_early() -> None:
    regrets = two()
    regrets.gave_up(0, keys(0, 8), 64)
    regrets.gave_up(1, keys(100, 4), 64)
    # One of them is looked at, whatever the others are.
    regrets.gave_up(1, [16 * 200, *range(16 * 200 + 1, 16 * 201)], 64)
    regrets.read([*keys(0, 2), *keys(50, 9), *keys(200, 1)], 1.0)
    assert list(regrets.shares) == [2 / 8, 1 / 5]
    # Once it was read it is there, and no longer given up.
    regrets.read([*keys(0, 2), *keys(2, 2)], 2.0)
    assert list(regrets.shares) == [4 / 8, 1 / 5]


def test_who_gives_up_little_regrets_little_though_all_of_it_be_asked_for() -> None:
    regrets = two()
    for slot in (0, 1):
        regrets.gave_up(slot, keys(10 * slot, 4), 16 * 80)
    regrets.gave_up(1, keys(20, 12), 16 * 80)
    # A tenth of what there is room for are eight of those that are looked at.
    regrets.read([*keys(0, 4), *keys(10, 4)], 1.0)
    assert list(regrets.shares) == [4 / 8, 4 / 16]
    # And a minute and a half later, of what came then.
    regrets.read((), 100.0)
    assert list(regrets.shares) == [4 / 8, 4 / 16]


def test_the_last_to_give_it_up_is_the_one_that_is_asked_again() -> None:
    regrets = two()
    regrets.gave_up(0, keys(0, 4), 64)
    regrets.gave_up(1, keys(0, 2), 64)
    regrets.read(keys(0, 4), 1.0)
    assert list(regrets.shares) == [2 / 4, 2 / 2]


def test_nobody_remembers_what_was_given_up_long_ago() -> None:
    regrets = two()
    regrets.read((), 100.0)
    regrets.gave_up(0, keys(0, 4), 64)
    regrets.read(keys(0, 1), 150.0)
    # The next time has come, and this one is remembered.
    regrets.read(keys(1, 1), 200.0)
    regrets.gave_up(1, keys(10, 4), 64)
    assert list(regrets.shares) == [2 / 4, 0.0]
    regrets.read([*keys(2, 2), *keys(10, 4)], 300.0)
    assert list(regrets.shares) == [0.0, 1.0]
    regrets.read((), 400.0)
    regrets.read((), 500.0)
    assert list(regrets.shares) == [0.0, 0.0]


def test_a_new_worker_in_an_old_ones_place_gave_nothing_up() -> None:
    regrets = two()
    regrets.gave_up(1, keys(0, 4), 64)
    regrets.read(keys(0, 1), 1.0)
    regrets.begin(1)
    assert list(regrets.shares) == [0.0, 0.0]
    regrets.gave_up(1, keys(10, 1), 64)
    # The old one's are still missed, but no more than all of what the new one gave up.
    regrets.read(keys(1, 3), 2.0)
    assert list(regrets.shares) == [0.0, 1.0]


def test_an_engine_that_tells_gives_up_what_it_removes_and_not_what_it_loses() -> None:
    caches = CacheMap(capacity=1_000, worker_blocks=1_000)
    view = caches.tells("w")
    view.stored(keys(0, 12))
    view.evicted(keys(0, 4))
    view.clear()
    caches.regrets.read(keys(0, 12), 1.0)
    assert list(caches.regrets.shares) == [1.0]
    caches.forget("w")
    assert isinstance(caches.tells("v"), Exact)
    assert list(caches.regrets.shares) == [0.0]


@pytest.mark.parametrize(
    ("told", "share"), [(Removed(list(range(500))), 1.0), (Cleared(), 0.0), (Removed([1000]), 0.0), (None, 0.0)]
)
def test_an_engine_that_is_cleared_or_not_to_be_relied_on_gave_nothing_up(told: Told | None, share: float) -> None:
    caches = CacheMap(capacity=10_000, worker_blocks=1_000)
    hearing = Hearing("w", caches, lambda: 0.0)
    stored = Stored(list(range(500)), None, list(range(500 * GRANULE)), GRANULE)
    other = Stored([1000], None, [7] * GRANULE, GRANULE)
    hearing.heard(Batch([stored], 0))
    hearing.heard(Batch([other], 1))
    held = hearing.book.held()
    if told is None:
        hearing.void(0)
    else:
        hearing.heard(Batch([told], 0))
    caches.regrets.read(held, 1.0)
    assert list(caches.regrets.shares) == [share]


def test_a_guess_gives_up_what_there_is_no_room_for() -> None:
    caches = CacheMap(capacity=1_000, worker_blocks=4)
    view = caches.view("w")
    view.ended(1, keys(0, 4))
    view.ended(2, keys(10, 3))
    caches.regrets.read(keys(2, 2), 1.0)
    assert list(caches.regrets.shares) == [2 / 3]


@pytest.mark.parametrize("asked", [False, True])
def test_a_prompt_that_is_new_avoids_the_worker_whose_prompts_are_read_again(asked: bool) -> None:
    caches = CacheMap(capacity=10_000, worker_blocks=1_000)
    placer = Placer(caches, Tuning())
    for worker_id in ("a", "b"):
        placer.load(worker_id)
    a = caches.tells("a")
    a.stored([*keys(0, 500), *keys(1_000, 500)])
    a.evicted(keys(0, 500))

    def place(serial: int, prompt: Sequence[int]) -> str:
        # So much later that nobody remembers who has read last.
        ask, now = Ask(serial=serial, tokens=64 * len(prompt)), 40.0 * serial
        placement = placer.place(POLICIES["cache_aware"], ask, Prompt(prompt, ask.tokens), ("a", "b"), now)
        placer.spoke(placement, now)
        placer.ended(placement, now)
        return placement.worker_id

    if asked:
        assert place(1, keys(0, 500)) == "b"
    # Both are idle and hold nothing of it; a would be the next.
    assert place(2, keys(2_000, 500)) == ("b" if asked else "a")
    # What it holds it is given all the same.
    assert place(3, keys(1_000, 500)) == "a"


@pytest.mark.parametrize(
    ("regret", "secs", "chosen"),
    [(0.0, 1.0, 0), (0.3, 1.0, 1), (0.1, 4.0, 0), (0.9, 4.0, 1), (1.0, 60.0, 1), (1.0, 300.0, 0)],
)
def test_it_is_worth_a_longer_wait_but_not_any(regret: float, secs: float, chosen: int) -> None:
    # Reading it takes about ten seconds.
    field = replace(a_field(0, 0), held_secs=(0.0, secs), regret=(regret, 0.0))
    assert POLICIES["cache_aware"](Ask(tokens=50_000), field) == chosen
    assert POLICIES["cache_aware"](Ask(tokens=50_000), replace(field, regret=(regret, regret))) == 0


async def test_it_can_be_seen_of_each_worker() -> None:
    fleet = world(a=FakeWorker(), b=FakeWorker()).fleet(policy="cache_aware")
    await fleet.ready()
    told = fleet.desk.caches.tells("http://b")
    told.evicted(keys(0, 4))
    fleet.desk.caches.regrets.read(keys(0, 3), 1.0)
    assert {view.url: view.cache_regret for view in FleetAdmin(fleet).workers()} == {"http://a": 0.0, "http://b": 0.75}
