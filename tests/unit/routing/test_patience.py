"""Waiting, on a clock that stands still while this process does."""

from __future__ import annotations

import asyncio

import pytest

from app.routing.patience import patiently
from app.routing.retrying import doubling
from tests.support.clocks import put_forward


async def answer(secs: float) -> str:
    await asyncio.sleep(secs)
    return "answer"


async def test_what_comes_in_time_is_returned_and_what_does_not_is_ended() -> None:
    assert await patiently(answer(0.01), 30) == "answer"
    asked = asyncio.Event()

    async def nothing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            asked.set()

    with pytest.raises(TimeoutError):
        await patiently(nothing(), 0.05)
    assert asked.is_set()


async def test_what_is_raised_is_raised() -> None:
    async def broken() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await patiently(broken(), 5)


async def test_time_in_which_this_process_stood_still_is_not_counted() -> None:
    async def steps() -> str:
        for _ in range(3):
            await asyncio.sleep(0.01)
        return "answer"

    asking = asyncio.create_task(patiently(steps(), 30))
    await asyncio.sleep(0)
    put_forward(60)
    assert await asking == "answer"


async def test_whoever_is_cancelled_ends_what_was_asked() -> None:
    ended = asyncio.Event()

    async def nothing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    asking = asyncio.create_task(patiently(nothing(), 5))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ended.is_set()


def test_pauses_double_and_add_up() -> None:
    assert list(doubling(1, 4, 12)) == [1, 2, 4, 4, 1]
    assert list(doubling(1, 4, 0)) == []
    without = list(doubling(0, 0, 1))
    assert min(without) > 0
    assert sum(without) == pytest.approx(1)
