"""Calls that a server holds open: within one process, bounded, and gone on with by whom they belong to."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from mcp import types

from app.mcp.failure import McpFailure
from app.mcp.held import Held, Holding, Talk, Talks
from app.turn.events import Answer
from app.turn.items import Question

ANN = ("t", "ann")
WHO = Question("Who?", "{}")


async def call(talk: Talk, log: list[str], *asked: Question) -> str:
    """A call that asks one thing after the other."""
    try:
        said = [(await talk.ask(each)).action for each in asked]
    except asyncio.CancelledError:
        log.append("cancelled")
        raise
    return " ".join(said)


def held(log: list[str], *asked: Question) -> Held[str]:
    talk = Talk()
    return Held(call(talk, log, *asked), talk)


async def test_it_asks_and_goes_on_until_it_is_done() -> None:
    made = held([], WHO, Question("Why?", "{}"))
    assert await made.next() == (WHO,)
    made.talk.answer((Answer("accept"),))
    assert await made.next() == (Question("Why?", "{}"),)
    made.talk.answer((Answer("decline"),))
    assert await made.next() == "accept decline"


async def test_one_that_asks_nothing_is_done_at_once_and_a_failure_is_raised() -> None:
    assert await held([]).next() == ""

    async def fails() -> str:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await Held(fails(), Talk()).next()


async def test_whoever_stops_waiting_for_it_gives_it_up() -> None:
    log: list[str] = []

    async def forever() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        return ""

    waiting = asyncio.create_task(Held(forever(), Talk()).next())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert log == ["cancelled"]


async def test_it_is_kept_for_the_one_whose_it_is_and_taken_once() -> None:
    holding = Holding(2, 60.0)
    made = held([], WHO)
    await made.next()
    reference = await holding.keep(ANN, made)
    for other in (("t", "bob"), ("u", "ann")):
        assert holding.take(other, reference) is None
    assert holding.take(ANN, reference) is made
    assert holding.take(ANN, reference) is None
    await made.drop()


async def test_a_tenant_keeps_no_more_than_it_may_and_another_is_not_hurt() -> None:
    holding, log = Holding(1, 60.0), list[str]()
    for whose in (ANN, ("u", "ann")):
        made = held(log, WHO)
        await made.next()
        await holding.keep(whose, made)
    another = held(log, WHO)
    await another.next()
    with pytest.raises(McpFailure, match="Too many calls wait"):
        await holding.keep(("t", "bob"), another)
    assert log == ["cancelled"]
    await holding.close()
    assert (len(holding), log) == (0, ["cancelled"] * 3)


async def test_nobody_is_waited_for_longer_than_is_said() -> None:
    holding, talk, given_up = Holding(1, 0.0), Talk(), asyncio.Event()

    async def asks() -> str:
        try:
            return (await talk.ask(WHO)).action
        finally:
            given_up.set()

    made = Held(asks(), talk)
    await made.next()
    reference = await holding.keep(ANN, made)
    await given_up.wait()
    assert holding.take(ANN, reference) is None


# ── whose question it is ──────────────────────────────────────────────────────

FORM = types.ElicitRequestFormParams(message="Who?", requested_schema={"type": "object", "properties": {}})
CONTEXT = cast("Any", None)


async def test_a_question_belongs_to_the_call_in_whose_answer_it_comes() -> None:
    talks, mine, other = Talks("s"), Talk(), Talk()
    talks.begin(other)
    talks.begin(mine)
    asking = asyncio.create_task(talks.heard(CONTEXT, FORM))
    assert [each.message for each in await mine.asked()] == ["Who?"]
    mine.answer((Answer("accept", '{"name":"Ann"}'),))
    assert await asking == types.ElicitResult(action="accept", content={"name": "Ann"})


async def test_one_that_says_nothing_about_it_belongs_to_the_only_call_there_is() -> None:
    talks, only, second = Talks("s"), Talk(), Talk()

    async def begun(talk: Talk) -> None:
        await asyncio.sleep(0)
        talks.begin(talk)

    refused = await talks.heard(CONTEXT, FORM)
    assert isinstance(refused, types.ErrorData)
    await asyncio.create_task(begun(only))
    asking = asyncio.create_task(talks.heard(CONTEXT, FORM))
    await only.asked()
    only.answer((Answer("cancel"),))
    assert await asking == types.ElicitResult(action="cancel")
    await asyncio.create_task(begun(second))
    assert isinstance(await talks.heard(CONTEXT, FORM), types.ErrorData)


async def test_what_nobody_should_be_asked_is_the_servers_error() -> None:
    talks, talk = Talks("s"), Talk()
    talks.begin(talk)
    sneaky = types.ElicitRequestURLParams(message="Go.", url="http://evil.example/", elicitation_id="1")
    refused = await talks.heard(CONTEXT, sneaky)
    assert isinstance(refused, types.ErrorData)
    assert "not https" in refused.message
