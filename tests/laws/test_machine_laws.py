"""The laws of the tool loop, whatever the model and the world do.

`World` plays both against a machine and keeps a ledger of what was said, shown and asked. It knows nothing of the
machine's inside: every law is about what went in and what came out. The strategies lean towards deep histories: calls
are mostly to tools that servers own, budgets are small, and turns that stop are rare. `tests/laws/mutate.py` checks
that the laws notice when the machine is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import event, target
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from msgspec import structs

from app.responses.machine import ResponseMachine
from app.turn.errors import Failure, LocalProtocolError
from app.turn.events import (
    Abort,
    CallDelta,
    CallModel,
    CallTool,
    Cancel,
    Emit,
    Finish,
    InEvent,
    ItemDone,
    ListTools,
    OutEvent,
    Phase,
    ReasoningDelta,
    RefusalDelta,
    Start,
    TextDelta,
    ToolReturned,
    ToolsListed,
    TurnDone,
    TurnFailed,
)
from app.turn.items import Item, Message, Reasoning, Text, ToolCall, ToolError, ToolListing, ToolResult, ToolSpec
from app.turn.request import NamedTool, Sampling, ToolChoice, TurnRequest
from app.turn.usage import Usage

# ── what the world can say ────────────────────────────────────────────────────

SCHEMA = msgspec.Raw(b"{}")
FAILURE = Failure(502, "upstream_error", "it broke")
DELTAS = (TextDelta, RefusalDelta, ReasoningDelta)

# Written down a second time on purpose: the machine's own table is what is on trial.
ACCEPTED: dict[Phase, frozenset[type]] = {
    Phase.IDLE: frozenset({Start, Cancel, Abort}),
    Phase.LISTING: frozenset({ToolsListed, Cancel, Abort}),
    Phase.SAMPLING: frozenset({*DELTAS, CallDelta, ItemDone, TurnDone, TurnFailed, Cancel, Abort}),
    Phase.CALLING: frozenset({ToolReturned, Cancel, Abort}),
    Phase.DONE: frozenset(),
}

LABELS = ["north", "south", "east"]
# Names collide between servers, with the client's `look`, and with what a collision is resolved to.
TOOLS = ["add", "look", "time", "see it", "north__add"]
GOOD = ["{}", "", " ", '{"a":1}', ' {"a":{"b":[]}} ']
BAD = ["false", "[]", "null", "{", "{}}", "\ud800"]
REASONS: list[Any] = ["tool_calls"] * 9 + ["stop", "length", "content_filter"]
ERRORS = [None, None, ToolError("http_error", "gone", 502)]
SAID: list[Item | None] = [None, Message("assistant", ()), Reasoning("hm")]


def specs(named: Iterable[str]) -> tuple[ToolSpec, ...]:
    """A tool for each name."""
    return tuple(ToolSpec(name, SCHEMA) for name in named)


names = st.lists(st.sampled_from(TOOLS), unique=True, min_size=1, max_size=4)
usages = st.builds(Usage, *(st.integers(0, 9) for _ in range(4)))
choices: st.SearchStrategy[ToolChoice] = st.sampled_from(["auto", "none", "required", NamedTool("add")])
requests = st.builds(
    TurnRequest,
    model=st.just("m"),
    items=st.just((Message("user", (Text("go"),)),)),
    tools=st.sampled_from([(), ("look",), ("look", "ask")]).map(specs),
    tool_choice=choices,
    parallel_tool_calls=st.booleans(),
    sampling=st.builds(Sampling, max_output_tokens=st.sampled_from([None, None, None, 8, 30]), seed=st.just(7)),
)
# Most runs are left to end by themselves; the others are cut at some step.
cuts = st.one_of(st.none(), st.none(), st.none(), st.integers(0, 8))
INDICES = [st.integers(0, max(count - 1, 0)) for count in range(40)]

T = TypeVar("T")


EVERY_KIND: tuple[InEvent, ...] = (
    Start(TurnRequest(model="m", items=())),
    ToolsListed("nobody asked"),
    *(kind("x") for kind in DELTAS),
    CallDelta("c", "add", ""),
    ItemDone(Reasoning("x")),
    TurnDone("stop"),
    TurnFailed(FAILURE),
    ToolReturned(ToolResult("nobody asked", "")),
    Cancel(),
    Abort(FAILURE),
)
EFFECT_OF: dict[Phase, type] = {Phase.LISTING: ListTools, Phase.SAMPLING: CallModel, Phase.CALLING: CallTool}


def pick(data: st.DataObject, options: Sequence[T]) -> T:
    """One of `options`."""
    return options[data.draw(INDICES[len(options)])]


def is_object(call: ToolCall) -> bool:
    """Whether the arguments are a JSON object, by another parser than the machine's."""
    try:
        return isinstance(json.loads(call.arguments), dict)
    except ValueError:
        return False


def partition(test: Callable[[T], bool], things: Sequence[T]) -> tuple[list[T], list[T]]:
    """Those that pass and those that do not, each in order."""
    return [one for one in things if test(one)], [one for one in things if not test(one)]


class Turn:
    """What the ledger knows of one model turn."""

    def __init__(self, request: TurnRequest, budget: int) -> None:
        self.request = request
        self.owners = {tool.name: tool for tool in request.tools if tool.server_label is not None}
        self.budget = budget
        self.admitted: dict[str, bool] = {}
        self.begun = 0
        self.items: list[Item] = []
        self.ended: list[ToolCall] = []
        self.asked: list[str] = []
        self.results: dict[str, ToolResult] = {}

    def admit(self, call_id: str, name: str) -> bool:
        """Whether a call is within the budget: decided when it is first heard of, in that order."""
        if call_id not in self.admitted:
            ours = name in self.owners
            self.admitted[call_id] = not ours or self.budget > 0
            self.budget -= ours and self.budget > 0
        return self.admitted[call_id]

    @property
    def ours(self) -> list[ToolCall]:
        """The gateway's calls of this turn, in the order in which they ended."""
        return [call for call in self.ended if call.name in self.owners]

    @property
    def said(self) -> list[Item]:
        """What the turn adds to the context: its items, then the results in the order of the calls."""
        return [*self.items, *(self.results[call.call_id] for call in self.ours)]


class World(RuleBasedStateMachine):
    """A model, some servers and a client, all capricious."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = ResponseMachine()
        self.fed: list[InEvent] = []
        self.out: list[list[OutEvent]] = []
        self.turns: list[Turn] = []
        self.usage = Usage()
        self.steps = 0

    @initialize(
        request=requests,
        servers=st.lists(st.sampled_from(LABELS), unique=True, min_size=1, max_size=3),
        known=st.sets(st.sampled_from(LABELS), max_size=1),
        listed=names,
        budget=st.sampled_from([3, 2, 1, 5, 9]),
        cut=cuts,
    )
    def start(
        self, request: TurnRequest, servers: list[str], known: set[str], listed: list[str], budget: int, cut: int | None
    ) -> None:
        self.request, self.servers, self.budget, self.cut = request, servers, budget, cut
        self.listings = {label: specs(listed) if label in known else () for label in self.servers}
        self.unlisted = [label for label in self.servers if label not in known]
        listings = tuple(ToolListing(label, specs(listed)) for label in sorted(known))
        self._our_bugs_are_refused()
        out = self._feed(Start(self.request, tuple(self.servers), listings, budget))
        assert [one for one in out if isinstance(one, ListTools)] == [ListTools(label) for label in self.unlisted]
        self._take_turn(out)

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        """One rule for all: rules that a run switches off, as hypothesis likes to, would leave it stuck in a phase."""
        self.steps += 1
        if self.machine.phase is not Phase.DONE and self.cut is not None and self.steps > self.cut:
            self._cut_short(data)
        elif self.machine.phase is Phase.LISTING:
            self._server_lists(data)
        elif self.machine.phase is Phase.SAMPLING:
            pick(data, [self._whole_turn, self._whole_turn, self._whole_turn, self._one_call, self._speak])(data)
        elif self.machine.phase is Phase.CALLING:
            self._tool_returns(data)
        self._our_bugs_are_refused()

    # ── feeding ───────────────────────────────────────────────────────────────

    def _feed(self, fed: InEvent) -> list[OutEvent]:
        out = self.machine.feed(fed)
        self.fed.append(fed)
        self.out.append(out)
        finishes = [one for one in out if isinstance(one, Finish)]
        assert bool(finishes) == (self.machine.phase is Phase.DONE)
        assert finishes in ([], out[-1:])
        assert self.machine.finish == (finishes[0] if finishes else None)
        for index, one in enumerate(out):
            if isinstance(one, ListTools | CallTool):
                assert out[index - 1] == Emit(one)
        # A machine that waits for nothing waits for ever; of two kinds of effects the runner would perform one.
        effects = [type(one) for one in out if not isinstance(one, Emit | Finish)]
        assert not (effects and finishes)
        assert set(effects) in (set(), {EFFECT_OF.get(self.machine.phase)})
        assert effects.count(CallModel) <= 1
        return out

    def _our_bugs_are_refused(self) -> None:
        """What a phase does not accept raises, and nobody can tell afterwards that it was tried."""
        phase = self.machine.phase
        wrong = [one for one in EVERY_KIND if type(one) not in ACCEPTED[phase]]
        unasked: list[InEvent] = [ToolsListed("nobody asked"), ToolReturned(ToolResult("nobody asked", ""))]
        for one in [*wrong, *(one for one in unasked if type(one) in ACCEPTED[phase])]:
            with pytest.raises(LocalProtocolError):
                self.machine.feed(one)
            assert self.machine.phase is phase

    # ── LISTING ───────────────────────────────────────────────────────────────

    def _server_lists(self, data: st.DataObject) -> None:
        label, error = pick(data, self.unlisted), pick(data, ERRORS)
        self.unlisted.remove(label)
        tools = () if error else specs(data.draw(names))
        self.listings[label] = tools
        answer = ToolsListed(label, tools, error)
        out = self._feed(answer)
        assert out[0] == Emit(answer)
        assert [type(one) for one in out[1:]] == ([] if self.unlisted else [CallModel])
        self._take_turn(out)

    # ── SAMPLING ──────────────────────────────────────────────────────────────

    def _whole_turn(self, data: st.DataObject) -> None:
        """Several calls, whose deltas interleave and which end in any order, and the end of the turn."""
        begun: list[tuple[str, str]] = []
        for _ in range(pick(data, [2, 2, 1, 1, 3, 4, 1, 0])):
            begun.append(self._new_call(data))
            for _ in range(pick(data, [0, 1, 2])):
                self._hear_delta(*pick(data, begun), pick(data, ["", "{"]))
        while begun:
            self._hear_call(*begun.pop(pick(data, range(len(begun)))), pick(data, pick(data, [GOOD, GOOD, GOOD, BAD])))
        self._end_turn(TurnDone(pick(data, REASONS), data.draw(usages)))

    def _one_call(self, data: st.DataObject) -> None:
        """A call in a turn that goes on, so that turns are also cut while calls are known or half said."""
        call = self._new_call(data)
        self._hear_delta(*call, "")
        if pick(data, [True, False]):
            self._hear_call(*call, pick(data, GOOD))

    def _speak(self, data: st.DataObject) -> None:
        said, item = pick(data, DELTAS)("x"), pick(data, SAID)
        assert self._feed(said) == [Emit(said)]
        if item is not None:
            assert self._feed(ItemDone(item)) == [Emit(ItemDone(item))]
            self.turn.items.append(item)

    def _new_call(self, data: st.DataObject) -> tuple[str, str]:
        """Mostly to a tool that a server owns. Ids are counted from zero in every turn, as engines do."""
        owned, others = sorted(self.turn.owners), [*(tool.name for tool in self.request.tools), "nobodys"]
        name = pick(data, others if not owned or pick(data, range(12)) == 11 else owned)
        self.turn.begun += 1
        return f"call_{self.turn.begun}", name

    def _hear_delta(self, call_id: str, name: str, text: str) -> None:
        owner = self.turn.owners.get(name)
        shown = CallDelta(call_id, name, text, *((owner.server_label, owner.tool) if owner else ()))
        admitted = self.turn.admit(call_id, name)
        assert self._feed(CallDelta(call_id, name, text)) == ([Emit(shown)] if admitted else [])

    def _hear_call(self, call_id: str, name: str, text: str) -> None:
        said = ToolCall(call_id, name, text)
        owner = self.turn.owners.get(name)
        admitted = self.turn.admit(call_id, name)
        out = self._feed(ItemDone(said))
        if not admitted:
            assert out == []
            return
        shown = ToolCall(call_id, name, text.strip() or "{}", owner.server_label, owner.tool) if owner else said
        assert out == [Emit(ItemDone(shown))]
        self.turn.items.append(shown)
        self.turn.ended.append(shown)
        with pytest.raises(LocalProtocolError):
            self.machine.feed(ItemDone(said))

    def _end_turn(self, done: TurnDone) -> None:
        self.usage += done.usage
        out = self._feed(done)
        cut = done.reason in ("length", "content_filter")
        asked, refused = partition(is_object, [] if cut else self.turn.ours)
        self.turn.asked = [call.call_id for call in asked]
        assert [one for one in out if isinstance(one, CallTool)] == [
            CallTool(call.call_id, call.server_label or "", call.tool or "", call.arguments) for call in asked
        ]
        # The machine answers for the server exactly when the server cannot be asked.
        answered = [one.event.result for one in out if isinstance(one, Emit) and isinstance(one.event, ToolReturned)]
        assert [result.call_id for result in answered] == [call.call_id for call in refused]
        assert all(result.error is not None and result.output for result in answered)
        self.turn.results = {result.call_id: result for result in answered}
        if asked:
            assert self.machine.phase is Phase.CALLING
        else:
            self._after_turn(out, done.reason)

    # ── CALLING ───────────────────────────────────────────────────────────────

    def _tool_returns(self, data: st.DataObject) -> None:
        waiting = [call_id for call_id in self.turn.asked if call_id not in self.turn.results]
        result = ToolResult(pick(data, waiting), f"result {self.steps}", pick(data, ERRORS))
        self.turn.results[result.call_id] = result
        out = self._feed(ToolReturned(result))
        assert out[0] == Emit(ToolReturned(result))
        if len(waiting) == 1:
            self._after_turn(out[1:], "tool_calls")
        else:
            assert out[1:] == []
            with pytest.raises(LocalProtocolError):
                self.machine.feed(ToolReturned(result))

    # ── the ends from outside ─────────────────────────────────────────────────

    def _cut_short(self, data: st.DataObject) -> None:
        ends = [TurnFailed(FAILURE)] if self.machine.phase is Phase.SAMPLING else []
        end = pick(data, [Cancel(), Abort(FAILURE), *ends])
        status = "cancelled" if isinstance(end, Cancel) else "failed"
        failure = None if isinstance(end, Cancel) else FAILURE
        assert self._feed(end) == [Finish(status, self.usage, failure=failure)]

    # ── between turns ─────────────────────────────────────────────────────────

    @property
    def turn(self) -> Turn:
        """The turn the model is at, or was last."""
        return self.turns[-1]

    @property
    def left(self) -> int:
        """The calls the gateway may still make."""
        return self.turn.budget if self.turns else self.budget

    def _after_turn(self, out: Sequence[OutEvent], reason: str) -> None:
        """All calls of the turn are answered: either the response is over for a reason, or the next turn begins."""
        limit = self.request.sampling.max_output_tokens
        finish: Finish | None = None
        if reason in ("length", "content_filter"):
            finish = Finish("incomplete", self.usage, "max_output_tokens" if reason == "length" else reason)
        elif not self.turn.ours or len(self.turn.ours) < len(self.turn.ended):
            # Nothing to go on with, or something that only the client can answer.
            finish = Finish("completed", self.usage)
        elif limit is not None and self.usage.output_tokens >= limit:
            finish = Finish("incomplete", self.usage, "max_output_tokens")
        assert self.machine.finish == finish
        self._take_turn(out)

    def _take_turn(self, out: Sequence[OutEvent]) -> None:
        """Begin the model turn that was asked for, if one was."""
        for request in [one.request for one in out if isinstance(one, CallModel)]:
            self._laws_of_a_turn(request)
            self.turns.append(Turn(request, self.left))

    def _laws_of_a_turn(self, request: TurnRequest) -> None:
        said = [item for turn in self.turns for item in turn.said]
        assert list(request.items) == [*self.request.items, *said]
        if self.turns:
            assert request.tools == self.turn.request.tools
        else:
            self._laws_of_the_tools(request.tools)
        limit = self.request.sampling.max_output_tokens
        left = None if limit is None else limit - self.usage.output_tokens
        assert left is None or left > 0
        assert request.sampling == structs.replace(self.request.sampling, max_output_tokens=left)
        assert request.tool_choice == self._choice(request)
        rest: dict[str, Any] = {"items": (), "tools": (), "sampling": Sampling(), "tool_choice": "auto"}
        assert structs.replace(request, **rest) == structs.replace(self.request, **rest)

    def _laws_of_the_tools(self, tools: Sequence[ToolSpec]) -> None:
        client = len(self.request.tools)
        assert tools[:client] == self.request.tools
        owned = [(label, name) for label in self.servers for name in sorted(tool.name for tool in self.listings[label])]
        assert [(tool.server_label, tool.tool) for tool in tools[client:]] == owned
        assert len({tool.name for tool in tools}) == len(tools)

    def _choice(self, request: TurnRequest) -> ToolChoice:
        if self.left == 0 and request.tools and not self.request.tools:
            return "none"
        return "auto" if self.turns and self.request.tool_choice != "none" else self.request.tool_choice

    # ── the whole run ─────────────────────────────────────────────────────────

    def teardown(self) -> None:
        every = [one for out in self.out for one in out]
        executed = [one for one in every if isinstance(one, CallTool)]
        listed = [one.server_label for one in every if isinstance(one, ListTools)]
        assert sum(isinstance(one, Finish) for one in every) == (self.machine.phase is Phase.DONE)
        assert self.machine.usage == self.usage
        assert len(executed) <= self.budget
        assert len(listed) == len(set(listed))
        assert all(isinstance(json.loads(one.arguments), dict) for one in executed)
        self._replays()
        event(f"turns: {min(len(self.turns), 6)}")
        event(f"ended: {self.machine.finish.status if self.machine.finish else 'not yet'}")
        event(f"dropped a call: {any(not kept for turn in self.turns for kept in turn.admitted.values())}")
        target(float(len(self.turns)), label="turns")
        target(float(len(executed)), label="calls executed")

    def _replays(self) -> None:
        again = ResponseMachine()
        assert [again.feed(one) for one in self.fed] == self.out
        assert (again.phase, again.usage, again.finish) == (
            self.machine.phase,
            self.machine.usage,
            self.machine.finish,
        )


TestMachineLaws = World.TestCase
