"""Responses in conversations, with prompts, counted, and compacted: the service over scripted neighbours."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import structs

from app.dialects.openai_responses.decode import decode_create
from app.dialects.openai_responses.desk import decode_compact, decode_count, decode_new_conversation
from app.responses.circumstances import USUAL
from app.responses.compacting import compact
from app.responses.conversations import Conversations
from app.responses.counting import Counted, Counting
from app.responses.foreman import Foreman
from app.responses.making import Maker
from app.responses.ports import RouteKey
from app.responses.prompts import Prompts
from app.responses.runs import Run, Runs
from app.responses.settings import ResponsesSettings
from app.turn.errors import GatewayError, InvalidRequest, NotFound
from app.turn.events import Cancel, TurnDone
from app.turn.ids import CountedIds
from app.turn.request import TurnRequest
from app.turn.usage import Usage
from tests.support.scripted import Scripted, calls, fails, says, thinks


def said(text: str) -> dict[str, str]:
    return {"type": "message", "role": "user", "content": text}


def talks(world: Scripted) -> Conversations:
    return Conversations(world.history.conversations, world.history, world.sealer, CountedIds(), world.clock.now)


async def begun(world: Scripted, *items: dict[str, Any]) -> str:
    asked = decode_new_conversation(msgspec.json.encode({"items": items}))
    return (await talks(world).create("t", asked)).id


async def kinds(world: Scripted, conversation: str) -> list[str]:
    page = await talks(world).items("t", conversation, limit=100, order="asc", after=None)
    return [msgspec.json.decode(item.raw)["type"] for item in page.items]


# ── conversations ─────────────────────────────────────────────────────────────


async def test_a_response_goes_on_with_the_conversation_and_becomes_part_of_it() -> None:
    world = Scripted()
    conversation = await begun(world, said("I am Dolly."))
    first = await world.ask(says("Hello Dolly"), conversation=conversation, input="Hi")
    assert first.body["conversation"] == {"id": conversation}
    assert first.body["previous_response_id"] is None
    assert world.told() == [("user", "I am Dolly."), ("user", "Hi")]
    await world.ask(
        says("You are Dolly"), conversation={"id": conversation}, input="Who am I?", instructions="Be brief"
    )
    assert [text for _, text in world.told()] == ["I am Dolly.", "Hi", "Hello Dolly", "Who am I?"]
    assert await kinds(world, conversation) == ["message"] * 5


async def test_a_conversation_may_be_answered_without_more_being_said() -> None:
    world = Scripted()
    conversation = await begun(world, said("Hi"))
    await world.ask(says("Hello"), conversation=conversation)
    assert world.told() == [("user", "Hi")]


async def test_calls_stay_open_in_the_conversation_until_they_are_answered() -> None:
    world = Scripted()
    conversation = await begun(world)
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}]
    await world.ask(calls(("f", {})), conversation=conversation, input="Hi", tools=tools)
    with pytest.raises(InvalidRequest) as caught:
        await world.ask(says("x"), conversation=conversation, input="Well?", tools=tools)
    assert caught.value.message.startswith("No tool output found")
    output = {"type": "function_call_output", "call_id": "call_1", "output": "done"}
    await world.ask(says("It is done"), conversation=conversation, input=[output], tools=tools)
    assert await kinds(world, conversation) == ["message", "function_call", "function_call_output", "message"]


async def test_a_response_that_failed_is_not_part_of_the_conversation() -> None:
    world = Scripted()
    conversation = await begun(world, said("Hi"))
    run = await _create(world, fails("boom"), conversation=conversation, input="x")
    with pytest.raises(GatewayError):
        await run.result()
    assert await kinds(world, conversation) == ["message"]
    await world.ask(says("Hello"), conversation=conversation, input="Again")
    assert [text for _, text in world.told()] == ["Hi", "Again"]


async def test_an_incomplete_response_is() -> None:
    world = Scripted()
    conversation = await begun(world)
    cut = [*says("Once upon")[:-1], TurnDone("length", Usage(1, 0, 1))]
    answer = await world.ask(cut, conversation=conversation, input="Tell me")
    assert answer.body["status"] == "incomplete"
    assert await kinds(world, conversation) == ["message", "message"]


async def test_a_conversation_that_moved_on_locks_out_who_read_it_before() -> None:
    world = Scripted()
    conversation = await begun(world, said("Hi"))
    old = await world.history.conversations.context("t", conversation)
    await world.ask(says("Hello"), conversation=conversation, input="x")

    async def stale(_tenant: str, _conversation: str) -> Any:
        return old

    world.history.conversations.context = stale
    with pytest.raises(InvalidRequest) as caught:
        await world.ask(says("Hello"), conversation=conversation, input="y")
    assert caught.value.code == "conversation_locked"
    assert await kinds(world, conversation) == ["message"] * 3


async def held(world: Scripted, conversation: str, **fields: Any) -> tuple[Run, asyncio.Event]:
    """A response in the conversation whose model waits to be let go."""
    let_go = asyncio.Event()

    async def wait(_request: TurnRequest, _hear: object = None) -> Any:
        await let_go.wait()
        yield TurnDone("stop")

    world.model.stream = wait
    body = msgspec.json.encode({"model": "m", "conversation": conversation, "input": "x", **fields})
    followed = await world.service.create("t", decode_create(body))
    (run,) = [each for each in world.service._runs.all if each.items() == followed.items()]
    return run, let_go


@pytest.mark.parametrize("store", [True, False])
async def test_a_conversation_is_held_while_a_response_is_made_in_it(store: bool) -> None:
    world = Scripted()
    conversation = await begun(world, said("Hi"))
    run, let_go = await held(world, conversation, store=store)
    for fields in ({"store": False}, {}):
        with pytest.raises(InvalidRequest) as caught:
            await held(world, conversation, **fields)
        assert caught.value.code == "conversation_locked"
    let_go.set()
    async for batch in run.log.follow():
        if batch[-1].type == "response.completed":
            # Whoever hears the end can go on.
            another, _ = await held(world, conversation, store=False)
            another.end(Cancel())
            await another.over()
    assert await kinds(world, conversation) == ["message"] * (2 if store else 1)


async def test_what_is_not_stored_is_not_found_while_it_holds() -> None:
    world = Scripted()
    conversation = await begun(world)
    run, let_go = await held(world, conversation, store=False)
    with pytest.raises(NotFound):
        await world.service.get("t", run.id)
    let_go.set()
    await run.over()


async def test_a_hold_that_was_lost_ends_the_response() -> None:
    world = Scripted()
    conversation = await begun(world)
    run, _ = await held(world, conversation, store=False)
    run.lapsed()
    with pytest.raises(GatewayError) as caught:
        await run.result()
    assert caught.value.code == "conversation_lock_lost"


async def test_what_a_dead_process_held_is_free_when_its_time_has_run_out() -> None:
    world = Scripted()
    conversation = await begun(world)
    await held(world, conversation, store=False)
    world.restart()
    world.clock.time += 60
    await foreman(world).claim_once()
    assert not await world.runs.held("t", conversation)


async def test_what_nobody_makes_is_let_go_by_who_owns_it() -> None:
    world = Scripted()
    conversation = await begun(world)
    # Its conclusion failed, say; the process lives on, and says so.
    await held(world, conversation, store=False)
    left = foreman(world)
    await left.renew_once()
    await left.claim_once()
    assert not await world.runs.held("t", conversation)


def foreman(world: Scripted) -> Foreman:
    """The foreman of a process that makes nothing yet."""
    ports, settings = world.service._ports, ResponsesSettings()
    runs = Runs()
    maker = Maker(ports, settings, lambda _finish: None, runs.forget)
    return Foreman(ports, runs, maker, settings, renew_secs=1.0, poll_secs=1.0)


async def test_an_item_can_be_referred_to_from_a_conversation() -> None:
    world = Scripted()
    made = await world.ask(says("Hello"), input="Hi")
    reference = {"type": "item_reference", "id": made.output[0]["id"]}
    conversation = await begun(world, reference, said("So?"))
    await world.ask(says("So what"), conversation=conversation)
    assert world.told() == [("assistant", "Hello"), ("user", "So?")]
    with pytest.raises(NotFound):
        await begun(world, {"type": "item_reference", "id": "msg_none"})
    with pytest.raises(InvalidRequest) as caught:
        await begun(world, said("x"), {"type": "compaction_trigger"})
    assert caught.value.param == "items[1]"


async def test_a_sealed_item_of_somebody_else_is_refused_by_its_place() -> None:
    world = Scripted()
    with pytest.raises(InvalidRequest) as caught:
        await begun(world, said("x"), {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"})
    assert (caught.value.code, caught.value.param) == ("invalid_encrypted_content", "items[1].encrypted_content")


# ── prompts ───────────────────────────────────────────────────────────────────


async def prompt(world: Scripted, **body: Any) -> str:
    made = await Prompts(world.prompts, CountedIds(), world.clock.now).create("t", msgspec.json.encode(body))
    return made.id


async def test_a_prompt_says_what_the_request_leaves_open() -> None:
    world = Scripted()
    name = await prompt(world, instructions="You are {{who}}.", input="Greet {{name}}.", variables={"who": "a sheep"})
    asked = {"id": name, "variables": {"name": "Dolly"}}
    answer = await world.ask(says("Baa"), prompt=asked, input="Now.")
    assert answer.body["prompt"] == {"id": name, "version": "1", "variables": {"name": "Dolly"}}
    assert answer.body["instructions"] == world.last.instructions == "You are a sheep."
    assert world.told() == [("user", "Greet Dolly."), ("user", "Now.")]
    await world.ask(says("Baa"), prompt=asked, instructions="Be a goat.")
    assert world.last.instructions == "Be a goat."
    assert world.told() == [("user", "Greet Dolly.")]


async def test_what_is_wrong_with_a_prompt_is_named() -> None:
    world = Scripted()
    name = await prompt(world, instructions="{{x}}")
    for asked, param in (
        ({"id": "pmpt_9"}, "prompt.id"),
        ({"id": name, "version": "2"}, "prompt.version"),
        ({"id": name, "version": "latest"}, "prompt.version"),
        ({"id": name}, "prompt.variables.x"),
    ):
        with pytest.raises(GatewayError) as caught:
            await world.ask(says("x"), prompt=asked, input="x")
        assert caught.value.param == param
    with pytest.raises(InvalidRequest) as caught:
        await world.ask(says("x"), prompt={"id": name, "variables": {"x": "1"}}, input=[said("fine"), {"role": "user"}])
    assert caught.value.param == "input[1].content"


async def test_a_prompt_that_cannot_work_is_not_stored() -> None:
    world = Scripted()
    for body, param in (
        ({}, "instructions"),
        ({"instructions": "x", "model": "m"}, "model"),
        ({"instructions": "x", "variables": {"y": "1"}}, "variables.y"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await prompt(world, **body)
        assert caught.value.param == param


# ── counting and compacting ───────────────────────────────────────────────────


class Counter:
    """Counts like an engine that sees one token in everything; or cannot count."""

    def __init__(self, answer: int | None) -> None:
        self.answer = answer
        self.turns: list[TurnRequest] = []

    async def count(self, route: RouteKey, turn: TurnRequest) -> int | None:
        self.turns.append(turn)
        return self.answer


async def count(world: Scripted, counter: Counter, **body: Any) -> Counted:
    request = decode_count(msgspec.json.encode({"model": "m", **body}))
    counting = Counting(world.service._ports, world.service.planner, counter)
    return await counting.count("t", "", request)


async def test_what_is_counted_is_what_the_model_would_be_asked() -> None:
    world = Scripted()
    world.tools.add("s", "look", "touch")
    first = await world.ask(says("Hello"), input="Hi")
    asked = {
        "previous_response_id": first.body["id"],
        "input": "Look",
        "instructions": "Be brief",
        "tools": [{"type": "mcp", "server_label": "s", "server_url": "http://s", "require_approval": "never"}],
    }
    counter = Counter(7)
    assert await count(world, counter, **asked) == Counted(7, False)
    await world.ask(says("x"), **asked)
    assert counter.turns == [world.last]
    assert [tool.name for tool in counter.turns[0].tools] == ["look", "touch"]
    assert world.tools.called == []


async def test_without_an_engine_that_counts_the_number_is_estimated() -> None:
    world = Scripted()
    short, long = [await count(world, Counter(None), input="sheep " * n) for n in (10, 1000)]
    assert short.estimated
    assert long.estimated
    assert short.tokens == pytest.approx(15, abs=2)
    assert long.tokens == pytest.approx(1500, abs=5)


async def test_counting_uses_up_no_approval() -> None:
    world = Scripted()
    world.tools.add("s", "cut", ask=True)
    tools = [{"type": "mcp", "server_label": "s", "server_url": "http://s"}]
    first = await world.ask(calls(("cut", {})), input="Cut", tools=tools)
    asked = first.item("mcp_approval_request")
    answer = {"type": "mcp_approval_response", "approval_request_id": asked["id"], "approve": True}
    going_on = {"previous_response_id": first.body["id"], "input": [answer], "tools": tools}
    assert (await count(world, Counter(3), **going_on)).tokens == 3
    assert world.tools.called == []
    await world.ask(says("It is cut"), **going_on)
    assert [call.tool for call in world.tools.called] == ["cut"]


async def test_counting_what_is_not_there() -> None:
    world = Scripted()
    with pytest.raises(InvalidRequest) as caught:
        await count(world, Counter(1), previous_response_id="resp_0", input="x")
    assert caught.value.code == "previous_response_not_found"
    with pytest.raises(NotFound):
        await count(world, Counter(1), conversation="conv_0", input="x")
    with pytest.raises(InvalidRequest) as unknown:
        await count(world, Counter(1), input="x", temperature=1)
    assert unknown.value.param == "temperature"


async def test_a_window_holds_what_was_said_and_a_summary_that_only_we_can_read() -> None:
    world = Scripted()
    first = await world.ask([*thinks("hm"), *says("Hello Dolly")], input="I am Dolly")
    world.model.turns = [says("Dolly said hello.")]
    request = decode_compact(
        msgspec.json.encode({"model": "m", "previous_response_id": first.body["id"], "input": "I like grass"})
    )
    made = msgspec.json.decode(await compact(world.service, "t", "", request, USUAL))
    assert made["object"] == "response.compaction"
    assert [item["type"] for item in made["output"]] == ["message", "message", "compaction"]
    assert "Dolly" not in made["output"][-1]["encrypted_content"]
    assert made["usage"]["output_tokens"] == 5
    with pytest.raises(NotFound):
        await world.service.get("t", made["id"])
    await world.ask(says("Grass"), input=[*made["output"], said("What do I like?")])
    told = [text for _, text in world.told()]
    assert told[:2] == ["I am Dolly", "I like grass"]
    assert "Dolly said hello." in told[2]
    assert told[3] == "What do I like?"


async def test_a_summary_that_fails_is_an_error() -> None:
    world = Scripted()
    request = decode_compact(msgspec.json.encode({"model": "m", "input": "x"}))
    world.model.turns = [fails("boom")]
    with pytest.raises(GatewayError) as caught:
        await compact(world.service, "t", "", request, USUAL)
    assert caught.value.code == "boom"
    cut = [*says("Once upon")[:-1], TurnDone("length", Usage(1, 0, 1))]
    world.model.turns = [cut]
    with pytest.raises(GatewayError) as caught:
        await compact(world.service, "t", "", request, USUAL)
    assert (caught.value.status, caught.value.code) == (502, "compaction_failed")


async def _create(world: Scripted, *turns: Any, **request: Any) -> Any:
    world.model.turns = list(turns)
    asked = decode_count(msgspec.json.encode({"model": "m", **request}))
    return await world.service.create("t", structs.replace(asked))
