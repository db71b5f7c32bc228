"""The machine's rules, one example each. The laws in tests/laws say the same for every history."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import pytest

from app.responses.machine import RULES, ResponseMachine
from app.turn.errors import Failure, LocalProtocolError
from app.turn.events import (
    Abort,
    Answer,
    AnsweredCall,
    ApprovalOpened,
    Approved,
    ApprovedCall,
    AskApproval,
    CallDelta,
    CallModel,
    CallTool,
    Cancel,
    Compacted,
    Elicited,
    Emit,
    Finish,
    InEvent,
    ItemDone,
    ListTools,
    LoopEvent,
    OutEvent,
    Phase,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    Resumed,
    Start,
    Steered,
    Suspended,
    TextDelta,
    ToolReturned,
    ToolsListed,
    TurnCut,
    TurnDone,
    TurnEvent,
    TurnFailed,
    Window,
)
from app.turn.items import (
    Item,
    Message,
    Question,
    Reasoning,
    Terms,
    Text,
    ToolCall,
    ToolError,
    ToolListing,
    ToolResult,
    ToolSpec,
)
from app.turn.request import AllowedTools, Format, NamedTool, Sampling, ToolRef, TurnRequest
from app.turn.usage import Usage

SCHEMA = msgspec.Raw(b'{"type":"object"}')
USER = Message("user", (Text("go"),))
FAILURE = Failure(502, "upstream_error", "it broke")


def spec(name: str) -> ToolSpec:
    return ToolSpec(name, SCHEMA)


def request(*tools: str, **fields: object) -> TurnRequest:
    return TurnRequest(model="m", items=(USER,), tools=tuple(spec(name) for name in tools), **fields)


def answer(text: str) -> list[TurnEvent]:
    return [TextDelta(text), ItemDone(Message("assistant", (Text(text),)))]


def call(call_id: str, name: str, arguments: str = "{}") -> list[TurnEvent]:
    return [CallDelta(call_id, name, arguments), ItemDone(ToolCall(call_id, name, arguments))]


def calls_done(*calls: Sequence[TurnEvent], usage: Usage | None = None) -> list[TurnEvent]:
    return [*itertools.chain(*calls), TurnDone("tool_calls", usage or Usage())]


def returned(call_id: str, output: str = "ok") -> ToolReturned:
    return ToolReturned(ToolResult(call_id, output))


def play(machine: ResponseMachine, *events: InEvent) -> list[OutEvent]:
    return [out for event in events for out in machine.feed(event)]


def listing(
    *tools: str, client: Sequence[str] = (), server: str = "s", max_tool_calls: int = 128, **fields: object
) -> ResponseMachine:
    """A machine whose one server has answered: SAMPLING, first turn."""
    machine = ResponseMachine()
    play(
        machine,
        Start(request(*client, **fields), servers=(server,), max_tool_calls=max_tool_calls),
        ToolsListed(server, tuple(spec(name) for name in tools)),
    )
    return machine


def model_calls(outs: Sequence[OutEvent]) -> list[TurnRequest]:
    return [out.request for out in outs if isinstance(out, CallModel)]


def tool_calls(outs: Sequence[OutEvent]) -> list[str]:
    return [out.call_id for out in outs if isinstance(out, CallTool)]


def shown(outs: Sequence[OutEvent]) -> list[LoopEvent]:
    return [out.event for out in outs if isinstance(out, Emit)]


def context(outs: Sequence[OutEvent]) -> list[Item]:
    """What the model is told in the only model turn of `outs`, without what the request began with."""
    (turn,) = model_calls(outs)
    assert turn.items[0] == USER
    return list(turn.items[1:])


# ── a response without tools ──────────────────────────────────────────────────


def test_without_servers_the_first_turn_starts_at_once_and_is_the_request_itself() -> None:
    machine = ResponseMachine()
    asked = request("look", instructions="be brief", sampling=Sampling(temperature=0.5))
    assert machine.feed(Start(asked)) == [CallModel(asked)]
    assert machine.phase is Phase.SAMPLING


def test_a_turn_that_stops_completes_the_response() -> None:
    machine = ResponseMachine()
    machine.feed(Start(request()))
    usage = Usage(10, 4, 2, 1)
    outs = play(machine, *answer("hi"), TurnDone("stop", usage))
    assert shown(outs) == answer("hi")
    assert outs[-1] == Finish("completed", usage) == machine.finish
    assert machine.phase is Phase.DONE


def test_deltas_of_every_kind_pass_through_unchanged() -> None:
    machine = ResponseMachine()
    machine.feed(Start(request()))
    said = [ReasoningDelta("hm"), ItemDone(Reasoning("hm")), RefusalDelta("no"), TextDelta("x", msgspec.Raw(b"[]"))]
    assert shown(play(machine, *said)) == said


@pytest.mark.parametrize(
    ("reason", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")], ids=str
)
def test_a_turn_that_was_cut_makes_the_response_incomplete_and_runs_no_tools(reason: str, why: str) -> None:
    machine = listing("add")
    outs = play(machine, *call("c1", "add"), TurnDone(reason, Usage(1, 0, 1)))
    assert outs[-1] == Finish("incomplete", Usage(1, 0, 1), why)
    assert tool_calls(outs) == []


def test_a_failed_turn_fails_the_response_and_keeps_the_usage_of_earlier_turns() -> None:
    machine = listing("add")
    play(machine, *calls_done(call("c1", "add"), usage=Usage(5, 0, 2)), returned("c1"))
    assert play(machine, TextDelta("par"), TurnFailed(FAILURE))[-1] == Finish("failed", Usage(5, 0, 2), failure=FAILURE)


# ── listing ───────────────────────────────────────────────────────────────────


def test_every_server_is_asked_and_announced_in_request_order() -> None:
    machine = ResponseMachine()
    asks = [ListTools("b"), ListTools("a")]
    assert machine.feed(Start(request(), servers=("b", "a"))) == [Emit(asks[0]), asks[0], Emit(asks[1]), asks[1]]
    assert machine.phase is Phase.LISTING


def test_the_first_turn_waits_for_the_last_listing() -> None:
    machine = ResponseMachine()
    machine.feed(Start(request(), servers=("a", "b")))
    first, last = ToolsListed("b", (spec("two"),)), ToolsListed("a", (spec("one"),))
    assert machine.feed(first) == [Emit(first)]
    outs = machine.feed(last)
    assert outs[0] == Emit(last)
    assert [tool.name for tool in model_calls(outs)[0].tools] == ["one", "two"]


def test_a_server_that_fails_to_list_is_shown_and_the_response_goes_on_without_its_tools() -> None:
    machine = ResponseMachine()
    machine.feed(Start(request("look"), servers=("a",)))
    failed = ToolsListed("a", error=ToolError("http_error", "refused", 503))
    outs = machine.feed(failed)
    assert shown(outs) == [failed]
    assert [tool.name for tool in model_calls(outs)[0].tools] == ["look"]


def test_known_listings_are_not_asked_again_and_their_tools_are_offered() -> None:
    machine = ResponseMachine()
    outs = machine.feed(Start(request(), servers=("a", "b"), known=(ToolListing("a", (spec("one"),)),)))
    assert outs == [Emit(ListTools("b")), ListTools("b")]
    (turn,) = model_calls(machine.feed(ToolsListed("b", (spec("two"),))))
    assert [(tool.name, tool.server_label) for tool in turn.tools] == [("one", "a"), ("two", "b")]


def test_when_all_listings_are_known_the_model_is_called_at_once() -> None:
    machine = ResponseMachine()
    outs = machine.feed(Start(request(), servers=("a",), known=(ToolListing("a", (spec("one"),)),)))
    assert [tool.name for tool in model_calls(outs)[0].tools] == ["one"]
    assert len(outs) == 1


def test_a_known_listing_of_a_server_the_request_does_not_name_offers_nothing() -> None:
    machine = ResponseMachine()
    outs = machine.feed(Start(request(), servers=(), known=(ToolListing("gone", (spec("one"),)),)))
    assert model_calls(outs)[0].tools == ()


def test_the_order_of_tools_depends_neither_on_who_answers_first_nor_on_a_servers_own_order() -> None:
    seen: set[tuple[str, ...]] = set()
    for labels in itertools.permutations("abc"):
        for names in itertools.permutations(["x", "y", "z"]):
            machine = ResponseMachine()
            machine.feed(Start(request("mine", "also"), servers=("c", "a", "b")))
            outs = play(machine, *(ToolsListed(label, tuple(spec(label + name) for name in names)) for label in labels))
            seen.add(tuple(tool.name for tool in model_calls(outs)[0].tools))
    assert seen == {("mine", "also", "cx", "cy", "cz", "ax", "ay", "az", "bx", "by", "bz")}


def test_colliding_names_are_told_apart_and_each_call_reaches_its_own_server() -> None:
    machine = ResponseMachine()
    machine.feed(Start(request("search"), servers=("a", "b")))
    outs = play(machine, ToolsListed("a", (spec("search"), spec("add"))), ToolsListed("b", (spec("add"),)))
    names = [tool.name for tool in model_calls(outs)[0].tools]
    assert names == ["search", "a__add", "a__search", "b__add"]
    outs = play(machine, *calls_done(call("c1", "b__add"), call("c2", "a__search"), call("c3", "a__add")))
    asked = [out for out in outs if isinstance(out, CallTool)]
    assert asked == [
        CallTool("c1", "b", "add", "{}"),
        CallTool("c2", "a", "search", "{}"),
        CallTool("c3", "a", "add", "{}"),
    ]


def test_a_clients_tool_keeps_its_name_and_its_calls() -> None:
    machine = listing("search", client=["search"])
    outs = play(machine, *calls_done(call("c1", "search")))
    assert outs[-1] == Finish("completed", Usage())
    assert tool_calls(outs) == []


# ── calls ─────────────────────────────────────────────────────────────────────


def test_a_gateways_call_is_labelled_announced_executed_and_answered() -> None:
    machine = listing("add")
    outs = play(machine, *calls_done(call("c1", "add", '{"a":1}')))
    ask = CallTool("c1", "s", "add", '{"a":1}')
    labelled = ToolCall("c1", "add", '{"a":1}', "s", "add")
    assert outs == [Emit(CallDelta("c1", "add", '{"a":1}', "s", "add")), Emit(ItemDone(labelled)), Emit(ask), ask]
    assert machine.phase is Phase.CALLING
    outs = machine.feed(returned("c1", "2"))
    assert outs[0] == Emit(returned("c1", "2"))
    assert context(outs) == [labelled, ToolResult("c1", "2")]


def test_results_are_added_in_the_order_of_the_calls_however_they_arrive() -> None:
    for order in itertools.permutations(["c1", "c2", "c3"]):
        machine = listing("add")
        play(machine, *answer("one moment"), *calls_done(*(call(call_id, "add") for call_id in ("c1", "c2", "c3"))))
        outs = play(machine, *(returned(call_id) for call_id in order))
        assert [shown_one.result.call_id for shown_one in shown(outs) if isinstance(shown_one, ToolReturned)] == [
            *order
        ]
        said = context(outs)
        assert isinstance(said[0], Message)
        assert [item.call_id for item in said[1:] if isinstance(item, ToolCall | ToolResult)] == ["c1", "c2", "c3"] * 2


def test_the_next_turn_waits_for_the_last_result() -> None:
    machine = listing("add")
    play(machine, *calls_done(call("c1", "add"), call("c2", "add")))
    assert machine.feed(returned("c2")) == [Emit(returned("c2"))]
    assert machine.phase is Phase.CALLING
    assert len(model_calls(machine.feed(returned("c1")))) == 1


def test_a_failed_call_is_shown_and_told_to_the_model() -> None:
    machine = listing("add")
    play(machine, *calls_done(call("c1", "add")))
    failed = ToolResult("c1", "the server is gone", ToolError("http_error", "gone", 502))
    outs = machine.feed(ToolReturned(failed))
    assert shown(outs) == [ToolReturned(failed)]
    assert context(outs)[-1] == failed


def test_contexts_grow_by_whole_turns() -> None:
    machine = listing("add")
    first = play(machine, *calls_done(call("c1", "add")), returned("c1"))
    second = play(machine, *calls_done(call("c2", "add")), returned("c2"))
    assert context(second)[:2] == context(first)
    assert [item.call_id for item in context(second) if isinstance(item, ToolCall | ToolResult)] == [
        "c1",
        "c1",
        "c2",
        "c2",
    ]


def test_a_client_call_alone_completes_the_response() -> None:
    machine = listing("add", client=["look"])
    outs = play(machine, *calls_done(call("c1", "look", '{"x":1}')))
    assert shown(outs) == call("c1", "look", '{"x":1}')
    assert outs[-1] == Finish("completed", Usage())


def test_of_mixed_calls_ours_are_answered_first_and_only_the_clients_stay_open() -> None:
    machine = listing("add", client=["look"])
    outs = play(machine, *calls_done(call("c1", "look"), call("c2", "add"), call("c3", "add")))
    assert tool_calls(outs) == ["c2", "c3"]
    assert machine.feed(returned("c3")) == [Emit(returned("c3"))]
    assert machine.feed(returned("c2")) == [Emit(returned("c2")), Finish("completed", Usage())]


def test_a_name_nobody_offered_is_left_to_the_client() -> None:
    machine = listing("add")
    outs = play(machine, *calls_done(call("c1", "no_such_tool", "whatever")))
    assert shown(outs) == call("c1", "no_such_tool", "whatever")
    assert outs[-1] == Finish("completed", Usage())


def test_a_name_nobody_offered_costs_no_budget() -> None:
    machine = listing("add", max_tool_calls=1)
    outs = play(machine, *calls_done(call("c1", "no_such_tool"), call("c2", "add")))
    assert tool_calls(outs) == ["c2"]


def test_a_turn_that_says_stop_after_calling_is_taken_at_its_calls() -> None:
    machine = listing("add")
    assert tool_calls(play(machine, *call("c1", "add"), TurnDone("stop"))) == ["c1"]


def test_a_call_without_any_delta_is_executed_all_the_same() -> None:
    machine = listing("add")
    outs = play(machine, ItemDone(ToolCall("c1", "add", "{}")), TurnDone("tool_calls"))
    assert tool_calls(outs) == ["c1"]


def test_a_call_that_never_ended_was_never_made() -> None:
    machine = listing("add")
    outs = play(machine, CallDelta("c1", "add", '{"a"'), TurnDone("tool_calls"))
    assert tool_calls(outs) == []
    assert outs[-1] == Finish("completed", Usage())


def test_a_call_cannot_end_twice() -> None:
    machine = listing("add")
    play(machine, *call("c1", "add"))
    with pytest.raises(LocalProtocolError, match="c1"):
        machine.feed(ItemDone(ToolCall("c1", "add", "{}")))
    assert tool_calls(machine.feed(TurnDone("tool_calls"))) == ["c1"]


def test_a_call_id_may_come_back_in_a_later_turn() -> None:
    machine = listing("add")
    play(machine, *calls_done(call("c1", "add")), returned("c1", "first"))
    outs = play(machine, *calls_done(call("c1", "add")), returned("c1", "second"))
    assert [item.output for item in context(outs) if isinstance(item, ToolResult)] == ["first", "second"]


# ── the budget ────────────────────────────────────────────────────────────────


def test_calls_over_the_budget_never_happened() -> None:
    machine = listing("add", max_tool_calls=2)
    outs = play(machine, *calls_done(*(call(f"c{n}", "add") for n in range(1, 6))))
    assert tool_calls(outs) == ["c1", "c2"]
    assert {event.item.call_id for event in shown(outs) if isinstance(event, ItemDone)} == {"c1", "c2"}
    assert {event.call_id for event in shown(outs) if isinstance(event, CallDelta)} == {"c1", "c2"}
    said = context(play(machine, returned("c1"), returned("c2")))
    assert [item.call_id for item in said if isinstance(item, ToolCall | ToolResult)] == ["c1", "c2", "c1", "c2"]


def test_the_first_delta_pays_even_when_another_call_ends_first() -> None:
    machine = listing("add", max_tool_calls=1)
    outs = play(
        machine,
        CallDelta("c1", "add", ""),
        CallDelta("c2", "add", "{}"),
        ItemDone(ToolCall("c2", "add", "{}")),
        CallDelta("c1", "add", "{}"),
        ItemDone(ToolCall("c1", "add", "{}")),
        TurnDone("tool_calls"),
    )
    assert tool_calls(outs) == ["c1"]


def test_the_budget_spans_turns() -> None:
    machine = listing("add", max_tool_calls=3)
    play(machine, *calls_done(call("c1", "add"), call("c2", "add")), returned("c1"), returned("c2"))
    assert tool_calls(play(machine, *calls_done(call("c3", "add"), call("c4", "add")))) == ["c3"]


def test_a_turn_of_dropped_calls_only_is_the_last() -> None:
    machine = listing("add", client=["look"], max_tool_calls=1)
    play(machine, *calls_done(call("c1", "add")), returned("c1"))
    outs = play(machine, *calls_done(call("c2", "add"), call("c3", "add")))
    assert outs == [Finish("completed", Usage())]


def test_client_calls_cost_nothing() -> None:
    machine = listing("add", client=["look"], max_tool_calls=1)
    outs = play(machine, *calls_done(call("c1", "look"), call("c2", "look"), call("c3", "add")))
    assert tool_calls(outs) == ["c3"]
    assert machine.feed(returned("c3"))[-1] == Finish("completed", Usage())


def test_a_dropped_call_beside_a_clients_call_leaves_only_the_clients() -> None:
    machine = listing("add", client=["look"], max_tool_calls=1)
    play(machine, *calls_done(call("c1", "add")), returned("c1"))
    outs = play(machine, *calls_done(call("c2", "add"), call("c3", "look")))
    assert shown(outs) == call("c3", "look")
    assert outs[-1] == Finish("completed", Usage())


def test_with_the_budget_spent_the_model_is_told_to_call_no_more() -> None:
    machine = listing("add", max_tool_calls=1, tool_choice="required")
    (turn,) = model_calls(play(machine, *calls_done(call("c1", "add")), returned("c1")))
    assert turn.tool_choice == "none"
    assert [tool.name for tool in turn.tools] == ["add"]


def test_with_the_budget_spent_client_tools_can_still_be_called() -> None:
    machine = listing("add", client=["look"], max_tool_calls=1)
    (turn,) = model_calls(play(machine, *calls_done(call("c1", "add")), returned("c1")))
    assert turn.tool_choice == "auto"


# ── arguments ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "arguments",
    ["false", "[]", "null", "7", '"{}"', '{"a":', "{} {}", "{a:1}", '{"a":NaN}', "\ud800", '{"a":' + "[" * 100_000],
    ids=lambda arguments: repr(arguments[:8]),
)
def test_arguments_that_are_no_object_are_answered_without_asking_the_server(arguments: str) -> None:
    machine = listing("add")
    outs = play(machine, *calls_done(call("c1", "add", arguments)))
    assert tool_calls(outs) == []
    made, result = context(outs)
    assert isinstance(made, ToolCall)
    assert made.arguments == arguments
    assert isinstance(result, ToolResult)
    assert result.error is not None
    assert result.error.kind == "mcp_protocol_error"
    assert ToolReturned(result) in shown(outs)


@pytest.mark.parametrize("arguments", ["", "  \n"], ids=repr)
def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    machine = listing("add")
    outs = play(machine, *calls_done(call("c1", "add", arguments)))
    assert CallTool("c1", "s", "add", "{}") in outs


def test_a_clients_arguments_are_the_clients_affair() -> None:
    machine = listing("add", client=["look"])
    assert shown(play(machine, *call("c1", "look", ""))) == call("c1", "look", "")


def test_bad_arguments_still_count() -> None:
    machine = listing("add", max_tool_calls=1)
    outs = play(machine, *calls_done(call("c1", "add", "false"), call("c2", "add")))
    assert tool_calls(outs) == []
    assert len(context(outs)) == 2


def test_a_bad_call_among_good_ones_waits_for_them_and_keeps_its_place() -> None:
    machine = listing("add")
    outs = play(machine, *calls_done(call("c1", "add"), call("c2", "add", "[]"), call("c3", "add")))
    assert tool_calls(outs) == ["c1", "c3"]
    assert model_calls(outs) == []
    said = context(play(machine, returned("c3"), returned("c1")))
    assert [item.call_id for item in said if isinstance(item, ToolResult)] == ["c1", "c2", "c3"]


def test_bad_calls_only_lead_straight_to_the_next_turn() -> None:
    machine = listing("add")
    outs = play(machine, *calls_done(call("c1", "add", "[]"), call("c2", "add", "false")))
    assert len(context(outs)) == 4
    assert machine.phase is Phase.SAMPLING
    assert play(machine, *answer("sorry"), TurnDone("stop"))[-1] == Finish("completed", Usage())


# ── sampling over turns ───────────────────────────────────────────────────────


@pytest.mark.parametrize("choice", ["required", NamedTool("add")], ids=str)
def test_a_forced_tool_choice_holds_for_the_first_turn(choice: object) -> None:
    machine = ResponseMachine()
    machine.feed(Start(request(tool_choice=choice), servers=("s",)))
    (first,) = model_calls(machine.feed(ToolsListed("s", (spec("add"),))))
    (second,) = model_calls(play(machine, *calls_done(call("c1", "add")), returned("c1")))
    assert (first.tool_choice, second.tool_choice) == (choice, "auto")


def test_a_choice_of_none_is_held_against_every_call() -> None:
    machine = listing("add", client=["look"], tool_choice="none")
    outs = play(machine, *calls_done(call("c1", "add"), call("c2", "look")))
    assert outs == [Finish("completed", Usage())]


def test_max_output_tokens_bounds_the_response() -> None:
    machine = listing("add", sampling=Sampling(max_output_tokens=100, seed=7))
    (second,) = model_calls(play(machine, *calls_done(call("c1", "add"), usage=Usage(9, 0, 60)), returned("c1")))
    (third,) = model_calls(play(machine, *calls_done(call("c2", "add"), usage=Usage(9, 0, 39)), returned("c2")))
    assert second.sampling == Sampling(max_output_tokens=40, seed=7)
    assert third.sampling == Sampling(max_output_tokens=1, seed=7)


def test_no_tokens_left_ends_the_response_after_its_calls_were_answered() -> None:
    machine = listing("add", sampling=Sampling(max_output_tokens=100))
    outs = play(machine, *calls_done(call("c1", "add"), usage=Usage(9, 0, 100)), returned("c1"))
    assert outs[-2:] == [Emit(returned("c1")), Finish("incomplete", Usage(9, 0, 100), "max_output_tokens")]


def test_usage_is_summed_over_turns() -> None:
    machine = listing("add")
    play(machine, *calls_done(call("c1", "add"), usage=Usage(10, 1, 5, 2)), returned("c1"))
    outs = play(machine, TurnDone("stop", Usage(20, 12, 7, 3)))
    assert outs == [Finish("completed", Usage(30, 13, 12, 5))]


# ── the ends from outside ─────────────────────────────────────────────────────

PATHS: dict[Phase, tuple[InEvent, ...]] = {
    Phase.IDLE: (),
    Phase.LISTING: (Start(request(), servers=("s",)),),
    Phase.SAMPLING: (Start(request(), servers=("s",)), ToolsListed("s", (spec("add"),)), CallDelta("c1", "add", "{")),
    Phase.CALLING: (
        Start(request(), servers=("s",)),
        ToolsListed("s", (spec("add"),)),
        *calls_done(call("c1", "add"), call("c2", "add"), usage=Usage(3, 0, 1)),
        returned("c1"),
    ),
    Phase.COMPACTING: (Start(request(), window=Window(compact_now=True)), TextDelta("so far")),
    Phase.DONE: (Start(request()), TurnDone("stop")),
}


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.DONE], ids=lambda phase: phase.name)
def test_cancel_and_abort_end_every_phase_at_once(phase: Phase) -> None:
    for event, status in ((Cancel(), "cancelled"), (Abort(FAILURE), "failed")):
        machine = ResponseMachine()
        play(machine, *PATHS[phase])
        assert machine.phase is phase
        usage = Usage(3, 0, 1) if phase is Phase.CALLING else Usage()
        assert machine.feed(event) == [Finish(status, usage, failure=FAILURE if isinstance(event, Abort) else None)]
        assert machine.phase is Phase.DONE


EVENTS: tuple[InEvent, ...] = (
    Start(request()),
    ToolsListed("s"),
    TextDelta("x"),
    RefusalDelta("x"),
    ReasoningDelta("x"),
    CallDelta("c9", "look", ""),
    ItemDone(USER),
    TurnDone("stop"),
    TurnFailed(FAILURE),
    returned("c2"),
    ApprovalOpened("c2", "mcpr_1", "s", "add", "{}"),
    Elicited("c2x", "mcpe_1", "s", "add", "{}", (Question("Who?", "{}", id="mcpe_1"),)),
    Cancel(),
    Resumed(),
    Steered(),
    Abort(FAILURE),
)


def test_the_events_tried_here_are_all_there_are() -> None:
    assert {type(event) for event in EVENTS} == set(InEvent.__args__)
    assert set(RULES) == set(Phase)


@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.name)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_a_phase_does_not_accept_is_our_bug_and_changes_nothing(phase: Phase, event: InEvent) -> None:
    machine = ResponseMachine()
    play(machine, *PATHS[phase])
    if type(event) in RULES[phase] and not isinstance(event, ApprovalOpened | Elicited):
        machine.feed(event)
        return
    with pytest.raises(LocalProtocolError, match="c2" if type(event) in RULES[phase] else phase.name):
        machine.feed(event)
    assert machine.phase is phase


def test_only_what_was_asked_is_answered() -> None:
    machine = ResponseMachine()
    machine.feed(Start(request(), servers=("a",), known=(ToolListing("b"),)))
    with pytest.raises(LocalProtocolError, match="b"):
        machine.feed(ToolsListed("b"))
    machine = listing("add")
    play(machine, *calls_done(call("c1", "add"), call("c2", "add")), returned("c1"))
    with pytest.raises(LocalProtocolError, match="c1"):
        machine.feed(returned("c1"))
    with pytest.raises(LocalProtocolError, match="c3"):
        machine.feed(returned("c3"))


# ── approvals ─────────────────────────────────────────────────────────────────

TERMS = Terms("here", "digest", "1")


def asking(*tools: str, **fields: object) -> ResponseMachine:
    """A machine whose one server has answered with tools that need approval, and with `free`, which does not."""
    machine = ResponseMachine()
    tools_of = [ToolSpec(name, SCHEMA, approval="ask", terms=TERMS) for name in tools]
    play(machine, Start(request(), servers=("s",), **fields), ToolsListed("s", (*tools_of, spec("free"))))
    return machine


def opened(call_id: str, tool: str = "add") -> ApprovalOpened:
    return ApprovalOpened(call_id, f"mcpr_{call_id}", "s", tool, "{}")


def test_a_call_that_needs_approval_is_asked_about_and_not_shown() -> None:
    machine = asking("add")
    outs = play(machine, *calls_done(call("c1", "add")))
    assert outs == [AskApproval("c1", "s", "add", "{}", TERMS)]
    assert machine.feed(opened("c1")) == [Emit(opened("c1")), Finish("completed", Usage())]


def test_the_rest_of_the_turn_runs_before_the_response_ends_with_its_request() -> None:
    machine = asking("add")
    outs = play(machine, *calls_done(call("c1", "add"), call("c2", "free")))
    assert [type(out) for out in outs if not isinstance(out, Emit)] == [AskApproval, CallTool]
    assert machine.feed(opened("c1")) == []
    assert machine.feed(returned("c2")) == [Emit(returned("c2")), Emit(opened("c1")), Finish("completed", Usage())]


def test_bad_arguments_are_answered_and_nobody_is_asked() -> None:
    machine = asking("add")
    outs = play(machine, *calls_done(call("c1", "add", "[]")))
    assert not [out for out in outs if isinstance(out, AskApproval)]
    assert len(context(outs)) == 2


def test_an_approval_nobody_asked_for_is_our_bug() -> None:
    machine = asking("add")
    play(machine, *calls_done(call("c1", "add"), call("c2", "free")))
    for wrong in (opened("c2", "free"), opened("c3")):
        with pytest.raises(LocalProtocolError, match=wrong.call_id):
            machine.feed(wrong)
    machine.feed(opened("c1"))
    with pytest.raises(LocalProtocolError, match="c1"):
        machine.feed(opened("c1"))


def test_an_approved_call_is_made_first_and_even_with_no_budget_left() -> None:
    machine = ResponseMachine()
    approved = tuple(ApprovedCall(f"mcpr_{n}", "s", "add", '{"n":1}', TERMS) for n in (1, 2))
    start = Start(request(), servers=("s",), approved=approved, max_tool_calls=1)
    outs = play(machine, start, ToolsListed("s", (spec("add"),)))
    made = [out for out in outs if isinstance(out, CallTool)]
    assert [(call.tool, call.arguments, call.approved.approval_id) for call in made if call.approved] == [
        ("add", '{"n":1}', "mcpr_1"),
        ("add", '{"n":1}', "mcpr_2"),
    ]
    assert model_calls(outs) == []
    assert machine.phase is Phase.CALLING
    (turn,) = model_calls(play(machine, returned("mcpr_2", "b"), returned("mcpr_1", "a")))
    assert [item.output for item in turn.items if isinstance(item, ToolResult)] == ["a", "b"]
    assert turn.tool_choice == "none"


# ── calls that ask the user ───────────────────────────────────────────────────


def elicited(call_id: str, tool: str = "free") -> Elicited:
    return Elicited(call_id, f"mcpe_{call_id}", "s", tool, "{}", (Question("Who?", "{}", id=f"mcpe_{call_id}"),))


def test_a_call_that_asks_ends_at_once_and_its_question_is_told_when_all_have_ended() -> None:
    machine = asking("add")
    play(machine, *calls_done(call("c1", "free"), call("c2", "free"), call("c3", "free")))
    assert machine.feed(elicited("c2")) == [Emit(Suspended("c2"))]
    assert machine.feed(returned("c3")) == [Emit(returned("c3"))]
    assert machine.feed(elicited("c1")) == [
        Emit(Suspended("c1")),
        Emit(elicited("c1")),
        Emit(elicited("c2")),
        Finish("completed", Usage()),
    ]


def test_a_call_that_waits_for_approval_asks_nothing_else() -> None:
    machine = asking("add")
    play(machine, *calls_done(call("c1", "add"), call("c2", "free")))
    for wrong in (elicited("c1", "add"), elicited("c3")):
        with pytest.raises(LocalProtocolError, match=wrong.call_id):
            machine.feed(wrong)
    machine.feed(elicited("c2"))
    assert machine.feed(opened("c1"))[-3:] == [
        Emit(opened("c1")),
        Emit(elicited("c2")),
        Finish("completed", Usage()),
    ]


def test_an_answered_call_goes_on_first_with_its_answers_and_may_ask_again() -> None:
    machine = ResponseMachine()
    reply = Reply("mcpe_1", b"state", (Answer("accept", '{"name":"Ann"}'),))
    word = Approved("mcpr_1", TERMS)
    answered = (AnsweredCall(reply, "s", "add", '{"n":1}', word),)
    approved = (ApprovedCall("mcpr_2", "s", "add", "{}", TERMS),)
    start = Start(request(), servers=("s",), approved=approved, answered=answered, max_tool_calls=1)
    outs = play(machine, start, ToolsListed("s", (spec("add"),)))
    made = [out for out in outs if isinstance(out, CallTool)]
    assert [each.call_id for each in made] == ["mcpr_2", "mcpe_1"]
    assert made[1] == CallTool("mcpe_1", "s", "add", '{"n":1}', word, reply=reply)
    shown = [out.event.item for out in outs if isinstance(out, Emit) and isinstance(out.event, ItemDone)]
    assert [(item.approval_id, item.elicitation_id) for item in shown if isinstance(item, ToolCall)] == [
        ("mcpr_2", None),
        ("mcpr_1", "mcpe_1"),
    ]
    again = machine.feed(Resumed())
    assert [out.again for out in again if isinstance(out, CallTool)] == [True, True]
    machine.feed(returned("mcpr_2"))
    assert machine.feed(elicited("mcpe_1", "add"))[-1] == Finish("completed", Usage())


# ── what may not be called ────────────────────────────────────────────────────


def constrained(*refs: ToolRef, lasting: bool = True, **fields: object) -> ResponseMachine:
    machine = ResponseMachine()
    start = Start(request("look"), servers=("s",), allowed=AllowedTools(refs, lasting=lasting), **fields)
    play(machine, start, ToolsListed("s", (spec("add"),)))
    return machine


def test_a_call_outside_the_allowed_tools_is_the_models_to_mend() -> None:
    machine = constrained(ToolRef("look"))
    outs = play(machine, *calls_done(call("c1", "add"), call("c2", "nobodys")))
    assert shown(outs) == []
    said = context(outs)
    assert [type(item) for item in said] == [ToolCall, ToolCall, ToolResult, ToolResult]
    assert shown(play(machine, *call("c3", "look"))) == call("c3", "look")


def test_a_model_that_never_learns_comes_to_an_end() -> None:
    machine = constrained(ToolRef("look"), max_tool_calls=2)
    for _ in range(2):
        assert len(model_calls(play(machine, *calls_done(call("c1", "add"))))) == 1
    assert play(machine, *calls_done(call("c1", "add")))[-1] == Finish("completed", Usage())


def test_a_choice_of_a_server_holds_for_the_first_turn() -> None:
    machine = constrained(ToolRef(None, "s"), lasting=False)
    play(machine, *calls_done(call("c1", "add")), returned("c1"))
    assert shown(play(machine, *call("c2", "look"))) == call("c2", "look")


def test_without_parallel_calls_only_the_first_of_a_turn_happened() -> None:
    machine = listing("add", client=["look"], parallel_tool_calls=False)
    outs = play(machine, *calls_done(call("c1", "add"), call("c2", "look"), call("c3", "add")))
    assert tool_calls(outs) == ["c1"]
    assert len(context(machine.feed(returned("c1")))) == 2


# ── the window ────────────────────────────────────────────────────────────────


def test_a_summary_replaces_everything_but_what_people_said() -> None:
    machine = ResponseMachine()
    (turn,) = model_calls(machine.feed(Start(request("look"), window=Window(compact_now=True))))
    assert turn.tool_choice == "none"
    assert [tool.name for tool in turn.tools] == ["look"]
    assert play(machine, *answer("gist"), *call("c1", "look")) == []
    assert machine.feed(TurnDone("stop", Usage(5, 0, 2)))[0] == Emit(Compacted("gist"))
    assert machine.finish == Finish("completed", Usage(5, 0, 2))


def test_a_response_is_summarised_once() -> None:
    machine = listing("add", sampling=Sampling())
    machine = ResponseMachine()
    play(machine, Start(request(), servers=("s",), window=Window(compact_at=50)), ToolsListed("s", (spec("add"),)))
    usage = Usage(60, 0, 1)
    play(machine, *calls_done(call("c1", "add"), usage=usage), returned("c1"))
    assert machine.phase is Phase.COMPACTING
    outs = play(machine, *answer("gist"), TurnDone("stop"))
    assert shown(outs) == [Compacted("gist")]
    assert next(item.text for item in model_calls(outs)[0].items if isinstance(item, Message)) == "go"
    play(machine, *calls_done(call("c2", "add"), usage=usage), returned("c2"))
    assert machine.phase is Phase.SAMPLING


def test_only_what_said_nothing_yet_is_tried_again_shorter() -> None:
    too_long = TurnFailed(Failure(400, "context_length_exceeded", "too long"))
    items = tuple(Message(role, (Text(f"{role} " * 20),)) for _ in range(4) for role in ("user", "assistant"))
    asked = TurnRequest(model="m", items=(*items, USER))
    machine = ResponseMachine()
    machine.feed(Start(asked, window=Window(truncate=True)))
    (shorter,) = model_calls(machine.feed(too_long))
    assert 0 < len(shorter.items) < len(asked.items)
    assert shorter.items[-1] == USER
    machine.feed(TextDelta("well"))
    assert machine.feed(too_long) == [Finish("failed", Usage(), failure=too_long.failure)]
    plain = ResponseMachine()
    plain.feed(Start(asked))
    assert plain.feed(too_long)[-1] == Finish("failed", Usage(), failure=too_long.failure)


def test_a_strict_answer_that_does_not_fit_fails_the_response() -> None:
    shape = Format(kind="json_schema", name="x", schema=msgspec.Raw(b'{"type":"array"}'), strict=True)
    for text, status in (("[1]", "completed"), ("1", "failed"), ("no", "failed")):
        machine = ResponseMachine()
        machine.feed(Start(request(format=shape)))
        play(machine, *answer(text), TurnDone("stop"))
        assert machine.finish is not None
        assert machine.finish.status == status


# ── resumption ────────────────────────────────────────────────────────────────


def test_a_machine_fed_the_stored_events_of_another_is_the_other() -> None:
    events = [*PATHS[Phase.CALLING], returned("c2"), *answer("2"), TurnDone("stop", Usage(1, 1, 1, 1))]
    stored = msgspec.json.encode(events)
    again = msgspec.json.decode(stored, type=list[InEvent])
    first, second = ResponseMachine(), ResponseMachine()
    assert [msgspec.json.encode(first.feed(event)) for event in events] == [
        msgspec.json.encode(second.feed(event)) for event in again
    ]
    assert second.phase is Phase.DONE


# ── beginning again ───────────────────────────────────────────────────────────


def again(*events: InEvent) -> list[OutEvent]:
    """What a machine that lived through `events` asks for once it is told that nobody will answer."""
    machine = ResponseMachine()
    play(machine, *events)
    return machine.feed(Resumed())


def test_listings_that_were_asked_for_are_asked_for_again() -> None:
    assert again(Start(request(), servers=("s", "t")), ToolsListed("s")) == [ListTools("t")]


def test_a_turn_that_was_cut_is_asked_for_again_as_it_was() -> None:
    machine = ResponseMachine()
    asked = play(machine, Start(request()))[-1]
    play(machine, ReasoningDelta("hm"), TextDelta("half a"))
    assert machine.feed(Resumed()) == [Emit(TurnCut()), asked]
    assert machine.turns == 1


def test_calls_that_were_asked_for_are_asked_for_again_in_order_and_say_so() -> None:
    found = again(*PATHS[Phase.CALLING])
    assert found
    assert all(isinstance(each, CallTool) and each.again for each in found)
    machine = ResponseMachine()
    first = [each for each in play(machine, *PATHS[Phase.CALLING]) if isinstance(each, CallTool)]
    assert [each.call_id for each in found] == [each.call_id for each in first][-len(found) :]


def test_a_machine_that_lived_through_a_cut_turn_lives_through_it_again() -> None:
    steps: list[InEvent] = [Start(request()), TextDelta("ha"), Resumed(), TextDelta("whole"), TurnDone("stop")]
    one, other = ResponseMachine(), ResponseMachine()
    assert play(one, *steps) == play(other, *steps)
    assert one.finish is not None
    assert one.finish.status == "completed"


# ── more to say ───────────────────────────────────────────────────────────────


def test_a_text_is_cut_where_it_stands() -> None:
    machine = ResponseMachine()
    play(machine, Start(request()), ReasoningDelta("hm"), TextDelta("half a"))
    assert machine.feed(Steered()) == [Finish("incomplete", Usage(), "steered")]


def test_a_call_that_was_begun_is_made_and_then_nothing_more_is_asked() -> None:
    machine = ResponseMachine()
    play(machine, Start(request(), servers=("s",)), ToolsListed("s", (spec("add"),)), CallDelta("c1", "add", "{"))
    assert machine.feed(Steered()) == []
    *_, asked = play(machine, ItemDone(ToolCall("c1", "add", "{}")), TurnDone("tool_calls"))
    assert isinstance(asked, CallTool)
    assert machine.feed(returned("c1"))[-1] == Finish("incomplete", Usage(), "steered")


def test_a_call_for_the_client_completes_the_response_as_ever() -> None:
    machine = ResponseMachine()
    play(machine, Start(request("look")), *call("c1", "look"))
    assert machine.feed(Steered()) == []
    assert machine.feed(TurnDone("tool_calls")) == [Finish("completed", Usage())]


def test_what_ends_by_itself_ends_as_it_would_have() -> None:
    machine = ResponseMachine()
    play(machine, Start(request(), servers=("s",)))
    assert machine.feed(Steered()) == []
    assert machine.feed(ToolsListed("s"))[-1] == Finish("incomplete", Usage(), "steered")


def test_a_summary_that_is_being_made_is_finished() -> None:
    machine = ResponseMachine()
    play(machine, Start(request(), window=Window(compact_now=True)))
    assert machine.feed(Steered()) == []
    outs = play(machine, ItemDone(Message("assistant", (Text("short"),))), TurnDone("stop"))
    assert outs[-1] == Finish("completed", Usage())


# ── what histories seldom show ────────────────────────────────────────────────


def test_requests_for_approval_are_told_in_the_order_of_their_calls() -> None:
    machine = asking("add", "sub")
    play(machine, *calls_done(call("c1", "add"), call("c2", "sub")))
    machine.feed(opened("c2", "sub"))
    outs = machine.feed(opened("c1"))
    assert outs == [Emit(opened("c1")), Emit(opened("c2", "sub")), Finish("completed", Usage())]


def test_a_call_that_never_happened_takes_nobodys_place() -> None:
    machine = listing("add", client=["look"], max_tool_calls=1, parallel_tool_calls=False)
    play(machine, *calls_done(call("c1", "add")), returned("c1"))
    outs = play(machine, *calls_done(call("c2", "add"), call("c3", "look")))
    assert shown(outs) == call("c3", "look")


SHAPED = ToolSpec("run", msgspec.Raw(b'{"type":"object","required":["commands"]}'), kind="shell")


def test_a_call_that_makes_no_item_is_refused_and_pays() -> None:
    machine = ResponseMachine()
    machine.feed(Start(TurnRequest(model="m", items=(USER,), tools=(SHAPED,)), max_tool_calls=1))
    outs = play(machine, *calls_done(call("c1", "run", '{"command":"ls"}')))
    assert shown(outs) == []
    assert len(context(outs)) == 2
    assert play(machine, *calls_done(call("c1", "run", "{}"))) == [Finish("completed", Usage())]


def test_only_what_was_lost_is_made_again() -> None:
    machine = listing("add")
    play(machine, *calls_done(call("c1", "add"), call("c2", "add")), returned("c1"))
    assert machine.feed(Resumed()) == [CallTool("c2", "s", "add", "{}", again=True)]


def test_a_turn_told_again_has_paid_for_nothing() -> None:
    machine = listing("add", max_tool_calls=1)
    play(machine, CallDelta("c1", "add", ""), Resumed())
    assert tool_calls(play(machine, *calls_done(call("c1", "add")))) == ["c1"]
