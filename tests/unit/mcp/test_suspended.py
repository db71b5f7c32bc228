"""A call that has asked goes on as exactly that call, with what it was answered, and not for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.mcp.client import Answer as Result
from app.mcp.failure import McpFailure
from app.mcp.held import Holding, Talk
from app.mcp.questions import Given, Needed
from app.mcp.suspended import MOST_ROUNDS, Place, make_or_go_on
from app.responses.eliciting import Asking
from app.turn.events import Answer, Reply
from app.turn.items import Question

WHERE = Place("hotel", "srv_1", "book", ("t", "ann"), asks=True)
WHO, WHY = Question("Who?", "{}"), Question("Why?", "{}")
ACCEPT = Answer("accept", '{"name":"Ann"}')
DONE = Result("done", is_error=False)


class Server:
    """Answers calls with what it is told to, one after the other, and knows what it was given."""

    def __init__(self, *comes: Result | Needed | Question) -> None:
        self.comes, self.given = list(comes), list[Given | None]()

    async def __call__(self, given: Given | None, talk: Talk | None) -> Result | Needed:
        self.given.append(given)
        await asyncio.sleep(0)
        while isinstance(comes := self.comes.pop(0), Question):
            assert talk is not None
            await talk.ask(comes)
        return comes


def reply(asking: Any, *answers: Answer) -> Reply:
    assert isinstance(asking, Asking)
    return Reply("mcpe_1", asking.state, answers)


async def test_the_answers_go_back_by_the_servers_own_names_with_its_state() -> None:
    server = Server(Needed((WHO, WHY), ("a", "b"), "state"), DONE)
    asking = await make_or_go_on(WHERE, Holding(1, 9.0), None, server)
    assert isinstance(asking, Asking)
    assert (asking.questions, asking.lasts) == ((WHO, WHY), None)
    came = await make_or_go_on(WHERE, Holding(1, 9.0), reply(asking, ACCEPT, Answer("decline")), server)
    assert came == DONE
    assert server.given == [None, Given({"a": ACCEPT, "b": Answer("decline")}, "state")]


async def test_a_call_that_sent_the_user_somewhere_is_made_again_if_they_agreed_to_go() -> None:
    server = Server(Needed((WHO,), again=True), DONE)
    asking = await make_or_go_on(WHERE, Holding(1, 9.0), None, server)
    with pytest.raises(McpFailure, match="did not agree"):
        await make_or_go_on(WHERE, Holding(1, 9.0), reply(asking, Answer("cancel")), server)
    assert await make_or_go_on(WHERE, Holding(1, 9.0), reply(asking, Answer("accept")), server) == DONE
    assert server.given == [None, None]


@pytest.mark.parametrize(
    "elsewhere",
    [
        Place("hotel", "srv_2", "book", ("t", "ann"), asks=True),
        Place("hotel", "srv_1", "cancel", ("t", "ann"), asks=True),
        Place("hotel", "srv_1", "book", ("t", "ann"), asks=False),
    ],
    ids=["server", "tool", "rules"],
)
async def test_no_other_call_goes_on(elsewhere: Place) -> None:
    server = Server(Needed((WHO,), ("a",), "secret"), DONE)
    asking = await make_or_go_on(WHERE, Holding(1, 9.0), None, server)
    with pytest.raises(McpFailure, match="cannot go on"):
        await make_or_go_on(elsewhere, Holding(1, 9.0), reply(asking, ACCEPT), server)
    assert server.given == [None]


async def test_a_server_that_asks_again_and_again_is_given_up() -> None:
    server = Server(*([Needed((WHO,), ("a",), "state")] * (MOST_ROUNDS + 1)))
    asking = await make_or_go_on(WHERE, Holding(1, 9.0), None, server)
    for _ in range(MOST_ROUNDS - 1):
        asking = await make_or_go_on(WHERE, Holding(1, 9.0), reply(asking, ACCEPT), server)
    with pytest.raises(McpFailure, match="again and again"):
        await make_or_go_on(WHERE, Holding(1, 9.0), reply(asking, ACCEPT), server)


async def test_a_call_that_waits_is_gone_on_with_once_and_where_it_waits() -> None:
    holding, server = Holding(1, 9.0), Server(WHO, WHY, DONE)
    asking = await make_or_go_on(WHERE, holding, None, server)
    assert isinstance(asking, Asking)
    assert (asking.questions, asking.lasts) == ((WHO,), 9.0)
    with pytest.raises(McpFailure, match="has stopped"):
        await make_or_go_on(WHERE, Holding(1, 9.0), reply(asking, ACCEPT), server)
    other = Place("hotel", "srv_1", "book", ("t", "bob"), asks=True)
    with pytest.raises(McpFailure, match="has stopped"):
        await make_or_go_on(other, holding, reply(asking, ACCEPT), server)
    again = await make_or_go_on(WHERE, holding, reply(asking, ACCEPT), server)
    assert isinstance(again, Asking)
    assert again.questions == (WHY,)
    assert await make_or_go_on(WHERE, holding, reply(again, ACCEPT), server) == DONE
    with pytest.raises(McpFailure, match="has stopped"):
        await make_or_go_on(WHERE, holding, reply(asking, ACCEPT), server)
    assert server.given == [None]


async def test_a_call_that_failed_while_its_user_thought_says_so() -> None:
    class Failing(Server):
        async def __call__(self, given: Given | None, talk: Talk | None) -> Result | Needed:
            await super().__call__(given, talk)
            raise ValueError("gone")

    holding = Holding(1, 9.0)
    failing = Failing(WHO, DONE)
    asking = await make_or_go_on(WHERE, holding, None, failing)
    with pytest.raises(ValueError, match="gone"):
        await make_or_go_on(WHERE, holding, reply(asking, ACCEPT), failing)
