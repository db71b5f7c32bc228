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
    Elicited,
    Emit,
    Finish,
    InEvent,
    ItemDone,
    ListTools,
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
    ToolsFound,
    ToolsListed,
    TurnCut,
    TurnDone,
    TurnFailed,
)
from app.turn.found import found_text
from app.turn.ids import part_of
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
from app.turn.request import AllowedTools, NamedTool, Sampling, ToolChoice, ToolRef, TurnRequest
from app.turn.usage import Usage

# ── what the world can say ────────────────────────────────────────────────────

SCHEMA = msgspec.Raw(b"{}")
FAILURE = Failure(502, "upstream_error", "it broke")
DELTAS = (TextDelta, RefusalDelta, ReasoningDelta)

# Written down a second time on purpose: the machine's own table is what is on trial.
ACCEPTED: dict[Phase, frozenset[type]] = {
    Phase.IDLE: frozenset({Start, Cancel, Abort}),
    Phase.LISTING: frozenset({ToolsListed, Resumed, Steered, Cancel, Abort}),
    Phase.SAMPLING: frozenset({*DELTAS, CallDelta, ItemDone, TurnDone, TurnFailed, Resumed, Steered, Cancel, Abort}),
    Phase.CALLING: frozenset({ToolReturned, ApprovalOpened, Elicited, Resumed, Steered, Cancel, Abort}),
    Phase.COMPACTING: frozenset({*DELTAS, CallDelta, ItemDone, TurnDone, TurnFailed, Resumed, Steered, Cancel, Abort}),
    Phase.DONE: frozenset(),
}

LABELS = ["north", "south", "east"]
# Names collide between servers, with the client's `look`, and with what a collision is resolved to.
TOOLS = ["add", "look", "time", "see it", "north__add"]
GOOD = ["{}", "", " ", '{"a":1}', ' {"a":{"b":[]}} ', '{"commands":["ls"]}', '{"query":["add","look"]}']
BAD = ["false", "[]", "null", "{", "{}}", "\ud800"]
REASONS: list[Any] = ["tool_calls"] * 9 + ["stop", "length", "content_filter"]
ERRORS = [None, None, ToolError("http_error", "gone", 502)]
SAID: list[Item | None] = [None, Message("assistant", ()), Reasoning("hm")]


# What a client may offer besides functions: free text, a tool whose calls have a shape, and a search of the gateway's.
SHAPE = msgspec.Raw(b'{"type":"object","required":["commands"],"properties":{"commands":{"type":"array"}}}')
CLIENT: dict[str, ToolSpec] = {
    "look": ToolSpec("look", SCHEMA),
    "ask": ToolSpec("ask", SCHEMA, kind="custom", namespace="n", tool="own"),
    "run": ToolSpec("run", SHAPE, kind="shell"),
    "find": ToolSpec("find", SCHEMA, kind="server_tool_search"),
}
# Calls of this tool need a person's word, whichever server has it.
ASKS = "time"
TERMS = Terms("here", "digest", "1")


def specs(named: Iterable[str]) -> tuple[ToolSpec, ...]:
    """A server's tool for each name."""
    return tuple(ToolSpec(name, SCHEMA, approval="ask" if name == ASKS else "never", terms=TERMS) for name in named)


names = st.lists(st.sampled_from(TOOLS), unique=True, min_size=1, max_size=4)
usages = st.builds(Usage, *(st.integers(0, 9) for _ in range(4)))
choices: st.SearchStrategy[ToolChoice] = st.sampled_from(["auto", "auto", "required", NamedTool("add"), "none"])
allowances: st.SearchStrategy[AllowedTools | None] = st.one_of(
    st.none(),
    st.none(),
    st.builds(
        AllowedTools,
        st.lists(
            st.sampled_from([ToolRef("look"), ToolRef("run"), ToolRef(None, "north"), ToolRef("add", "south")]),
            min_size=1,
            max_size=3,
        ).map(tuple),
        st.booleans(),
    ),
)
approvals = st.sampled_from([0, 0, 0, 1, 2]).map(
    lambda count: tuple(ApprovedCall(f"mcpr_{n}", LABELS[n], "add", '{"n":1}', TERMS) for n in range(count))
)
# Calls that asked the user before, one of them after it was approved.
REPLY = Reply("mcpe_0", b"state", (Answer("accept", '{"n":1}'),))
ANSWERED = (
    AnsweredCall(REPLY, "east", "look", '{"n":2}'),
    AnsweredCall(structs.replace(REPLY, elicitation_id="mcpe_1"), "east", "time", "{}", Approved("mcpr_9", TERMS)),
)
answers = st.sampled_from([0, 0, 0, 1, 2]).map(lambda count: ANSWERED[:count])
QUESTIONS = (Question("Your name?", "{}", id="mcpe_x"), Question("Go there.", url="https://x.example", id="mcpe_x-2"))
requests = st.builds(
    TurnRequest,
    model=st.just("m"),
    items=st.just((Message("user", (Text("go"),)),)),
    tools=st.sampled_from([(), (), ("look",), ("look", "ask"), ("find",), ("run", "find"), ("run", "look")]).map(
        lambda named: tuple(CLIENT[name] for name in named)
    ),
    tool_choice=choices,
    parallel_tool_calls=st.sampled_from([True, True, True, False]),
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
    ApprovalOpened("nobody asked", "mcpr_x", "s", "add", "{}"),
    Elicited("nobody asked", "mcpe_x", "s", "add", "{}", QUESTIONS),
    Cancel(),
    Abort(FAILURE),
    Resumed(),
    Steered(),
)
EFFECTS_OF: dict[Phase, set[type]] = {
    Phase.LISTING: {ListTools},
    Phase.SAMPLING: {CallModel},
    Phase.CALLING: {CallTool, AskApproval},
}


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


def fits(tool: ToolSpec | None, call: ToolCall) -> bool:
    """Whether a call can be shown as what its tool's calls are shown as."""
    if tool is None or tool.kind not in {"shell", "server_tool_search"}:
        return True
    return is_object(call) and (tool.kind != "shell" or "commands" in json.loads(call.arguments))


class Turn:
    """What the ledger knows of one model turn."""

    def __init__(self, request: TurnRequest, budget: int, allowed: AllowedTools | None) -> None:
        self.request = request
        self.tools = {tool.name: tool for tool in request.tools}
        self.owners = {name: tool for name, tool in self.tools.items() if self.is_gateways(tool)}
        self.allowed = allowed
        self.budget = self.began_with = budget
        self.before: list[Item] = []
        self.fates: dict[str, str] = {}
        self.begun = 0
        self.items: list[Item] = []
        self.ended: list[ToolCall] = []
        self.asked: list[str] = []
        self.results: dict[str, ToolResult] = {}
        self.requests: dict[str, ApprovalOpened | Elicited] = {}

    @staticmethod
    def is_gateways(tool: ToolSpec | None) -> bool:
        """Whether the gateway answers the tool's calls."""
        return tool is not None and (tool.server_label is not None or tool.kind == "server_tool_search")

    def fate(self, call_id: str, name: str) -> str:
        """What becomes of a call as far as its tool tells: decided when it is first heard of, in that order."""
        if call_id not in self.fates:
            self.fates[call_id] = self._decide(self.tools.get(name))
        return self.fates[call_id]

    def _decide(self, tool: ToolSpec | None) -> str:
        second = not self.request.parallel_tool_calls and set(self.fates.values()) - {"dropped"}
        if self.silent or second:
            return "dropped"
        if self.allowed is not None and (tool is None or not self.allowed.allows(tool)):
            return "refused" if self.pay() else "dropped"
        return "dropped" if self.is_gateways(tool) and not self.pay() else "kept"

    silent = False

    def pay(self) -> bool:
        """Take a call from the budget, if there is one."""
        self.budget -= (left := self.budget > 0)
        return left

    @property
    def dropped(self) -> set[str]:
        """The calls that never happened."""
        return {call_id for call_id, fate in self.fates.items() if fate == "dropped"}

    @property
    def open(self) -> list[ToolCall]:
        """The calls that somebody else has to answer: the client, or who is to approve them."""
        return [call for call in self.ended if call.call_id not in self.results]

    @property
    def said(self) -> list[Item]:
        """What the turn adds to the context: its items, then the results in the order of the calls."""
        answered = [self.results[call.call_id] for call in self.ended if call.call_id in self.results]
        return [*self.before, *self.items, *answered]


class World(RuleBasedStateMachine):
    """A model, some servers and a client, all capricious."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = ResponseMachine()
        self.fed: list[InEvent] = []
        self.out: list[list[OutEvent]] = []
        self.turns: list[Turn] = []
        self.retold: list[Turn] = []
        self.usage = Usage()
        self.steps = 0
        self.steered = False

    @initialize(
        request=requests,
        servers=st.lists(st.sampled_from(LABELS), unique=True, min_size=1, max_size=3),
        known=st.sets(st.sampled_from(LABELS), max_size=1),
        listed=names,
        budget=st.sampled_from([3, 2, 1, 5, 9]),
        cut=cuts,
        allowed=allowances,
        approved=approvals,
        answered=answers,
        deferred=st.booleans(),
    )
    def start(  # noqa: PLR0917 - hypothesis names them all
        self,
        request: TurnRequest,
        servers: list[str],
        known: set[str],
        listed: list[str],
        budget: int,
        cut: int | None,
        allowed: AllowedTools | None,
        approved: tuple[ApprovedCall, ...],
        answered: tuple[AnsweredCall, ...],
        deferred: bool,
    ) -> None:
        self.request, self.servers, self.budget, self.cut = request, servers, budget, cut
        self.allowed, self.approved, self.answered, self.found = allowed, approved, answered, list[ToolSpec]()
        searches = any(tool.kind == "server_tool_search" for tool in request.tools)
        self.deferred = tuple(servers[:2]) if deferred and searches else ()
        self.listings = {label: specs(listed) if label in known else () for label in self.servers}
        self.unlisted = [label for label in self.servers if label not in known]
        listings = tuple(ToolListing(label, specs(listed)) for label in sorted(known))
        self._our_bugs_are_refused()
        begin = Start(
            self.request,
            tuple(self.servers),
            listings,
            budget,
            allowed=allowed,
            approved=approved,
            answered=answered,
            deferred=self.deferred,
        )
        out = self._feed(begin)
        assert [one for one in out if isinstance(one, ListTools)] == [ListTools(label) for label in self.unlisted]
        self._go_on(out)

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        """One rule for all: rules that a run switches off, as hypothesis likes to, would leave it stuck in a phase."""
        self.steps += 1
        if self.machine.phase is not Phase.DONE and self.cut is not None and self.steps > self.cut:
            self._cut_short(data)
        elif self.machine.phase is not Phase.DONE and pick(data, range(12)) == 11:
            self._resume()
        elif self.machine.phase is Phase.LISTING:
            self._server_lists(data)
        elif self.machine.phase is Phase.SAMPLING:
            pick(data, [self._whole_turn, self._whole_turn, self._whole_turn, self._one_call, self._speak])(data)
        elif self.machine.phase is Phase.CALLING:
            self._tool_returns(data)
        self._our_bugs_are_refused()

    def _resume(self) -> None:
        """Another machine is where this one was, and what it waits for is lost."""
        phase = self.machine.phase
        out = self._feed(Resumed())
        if phase is Phase.LISTING:
            assert out == [ListTools(label) for label in self.unlisted_in_order]
        elif phase is Phase.CALLING:
            lost = [
                each for each in self.turn.asked if each not in self.turn.results and each not in self.turn.requests
            ]
            assert [one.call_id for one in out if isinstance(one, CallTool | AskApproval)] == lost
            assert all(one.again for one in out if isinstance(one, CallTool))
            assert len(out) == len(lost)
        elif self.turn.ended:
            assert out[0] == Emit(TurnCut())
            self._turn_acts(out[1:], "tool_calls")
        else:
            self._turn_again(out)

    def _turn_again(self, out: Sequence[OutEvent]) -> None:
        """The turn is asked for again as if it had not been: it paid for nothing. What it said stays said."""
        if self.steered:
            assert out == [Emit(TurnCut()), self._steered_end]
            return
        cut = self.turns.pop()
        self.retold.append(cut)
        assert [type(one) for one in out] == [Emit, CallModel]
        assert out[0] == Emit(TurnCut())
        request = next(one.request for one in out if isinstance(one, CallModel))
        assert list(request.items) == [*cut.request.items, *cut.items]
        again = Turn(request, cut.began_with, cut.allowed)
        again.silent, again.before = cut.silent, [*cut.before, *cut.items]
        self.turns.append(again)

    @property
    def unlisted_in_order(self) -> list[str]:
        """The servers that have not answered."""
        return [label for label in self.servers if label in self.unlisted]

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
            if isinstance(one, ListTools | CallTool) and not isinstance(fed, Resumed):
                assert out[index - 1] == Emit(one)
        # A machine that waits for nothing waits for ever; of two kinds of effects the runner would perform one.
        effects = [type(one) for one in out if not isinstance(one, Emit | Finish)]
        assert not (effects and finishes)
        assert set(effects) <= EFFECTS_OF.get(self.machine.phase, set())
        assert effects.count(CallModel) <= 1
        return out

    def _our_bugs_are_refused(self) -> None:
        """What a phase does not accept raises, and nobody can tell afterwards that it was tried."""
        phase = self.machine.phase
        wrong = [one for one in EVERY_KIND if type(one) not in ACCEPTED[phase]]
        unasked: list[InEvent] = [
            ToolsListed("nobody asked"),
            ToolReturned(ToolResult("nobody asked", "")),
            ApprovalOpened("nobody asked", "mcpr_x", "s", "add", "{}"),
            Elicited("nobody asked", "mcpe_x", "s", "add", "{}", QUESTIONS),
        ]
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
        self._go_on(out[1:])

    def _go_on(self, out: Sequence[OutEvent]) -> None:
        """All servers have listed: the approved calls are made, or the model is asked."""
        if self.unlisted:
            assert [one for one in out if not isinstance(one, Emit | ListTools)] == []
        elif self.steered and not self.first:
            assert out == [self._steered_end]
        elif not self.first:
            assert [type(one) for one in out] == [CallModel]
            self._take_turn(out)
        else:
            self._approved_calls(out)

    @property
    def first(self) -> list[ApprovedCall | AnsweredCall]:
        """What is called before the model is asked."""
        return [*self.approved, *self.answered]

    def _approved_calls(self, out: Sequence[OutEvent]) -> None:
        """Each call is shown and made as people have agreed to or answered, and pays; the model is asked when all have
        returned."""
        made = [one for one in out if isinstance(one, CallTool)]
        assert [one for one in out if not isinstance(one, Emit)] == made
        turn = Turn(structs.replace(self.request, tools=()), max(0, self.budget - len(self.first)), None)
        whose: list[tuple[str | None, str | None]] = []
        for call, first in zip(made, self.first, strict=True):
            assert (call.server_label, call.tool, call.arguments) == (first.server_label, first.tool, first.arguments)
            if isinstance(first, ApprovedCall):
                whose.append((first.approval_id, None))
                assert (call.approved, call.reply) == (Approved(first.approval_id, first.terms), None)
            else:
                whose.append((first.approved and first.approved.approval_id, first.reply.elicitation_id))
                assert (call.approved, call.reply) == (first.approved, first.reply)
            turn.asked.append(call.call_id)
        shown = [one.event.item for one in out if isinstance(one, Emit) and isinstance(one.event, ItemDone)]
        calls = [item for item in shown if isinstance(item, ToolCall)]
        assert [(item.tool, item.arguments) for item in calls] == [(one.tool, one.arguments) for one in self.first]
        assert [(item.approval_id, item.elicitation_id) for item in calls] == whose
        turn.items = list(shown)
        turn.ended = [item for item in shown if isinstance(item, ToolCall)]
        self.turns.append(turn)

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
        """Mostly to a tool that the gateway owns. Ids are counted from zero in every turn, as engines do."""
        owned, others = sorted(self.turn.owners), [*(tool.name for tool in self.request.tools), "nobodys"]
        name = pick(data, others if not owned or pick(data, range(12)) > 9 else owned)
        self.turn.begun += 1
        return f"call_{self.turn.begun}", name

    def _owned(self, said: Any, tool: ToolSpec | None) -> Any:
        if tool is None:
            return said
        whose = {"server_label": tool.server_label, "tool": tool.tool, "kind": tool.kind, "namespace": tool.namespace}
        return structs.replace(said, **whose)

    def _hear_delta(self, call_id: str, name: str, text: str) -> None:
        tool = self.turn.tools.get(name)
        early = tool is None or (tool.kind in {"function", "custom"} and tool.approval == "never")
        kept = self.turn.fate(call_id, name) == "kept"
        said = CallDelta(call_id, name, text)
        assert self._feed(said) == ([Emit(self._owned(said, tool))] if kept and early else [])

    def _hear_call(self, call_id: str, name: str, text: str) -> None:
        said, turn = ToolCall(call_id, name, text), self.turn
        tool = turn.tools.get(name)
        fate = turn.fate(call_id, name)
        call = self._owned(said, tool)
        if turn.is_gateways(tool):
            call = structs.replace(call, arguments=text.strip() or "{}")
        if fate == "kept" and not fits(tool, call):
            fate = "refused" if turn.is_gateways(tool) or turn.pay() else "dropped"
            turn.fates[call_id] = fate
        out = self._feed(ItemDone(said))
        if fate == "dropped":
            assert out == []
            return
        turn.items.append(call)
        turn.ended.append(call)
        hidden = fate == "refused" or (tool is not None and tool.approval == "ask" and is_object(call))
        assert out == ([] if hidden else [Emit(ItemDone(call))])
        with pytest.raises(LocalProtocolError):
            self.machine.feed(ItemDone(said))

    def _end_turn(self, done: TurnDone) -> None:
        self.usage += done.usage
        self._turn_acts(self._feed(done), done.reason)

    def _turn_acts(self, out: Sequence[OutEvent], reason: str) -> None:
        """What the turn asked for is done, or answered in place of whoever would do it."""
        turn = self.turn
        ended = [] if reason in ("length", "content_filter") else turn.ended
        refused, rest = partition(lambda call: turn.fates[call.call_id] == "refused", ended)
        ours = [call for call in rest if turn.is_gateways(turn.tools.get(call.name))]
        searches, calls = partition(lambda call: call.kind == "server_tool_search", ours)
        good, bad = partition(is_object, calls)
        waiting, asked = partition(lambda call: turn.tools[call.name].approval == "ask", good)
        turn.asked = [call.call_id for call in good]
        assert [one for one in out if isinstance(one, CallTool)] == [
            CallTool(call.call_id, call.server_label or "", call.tool or "", call.arguments) for call in asked
        ]
        assert [one for one in out if isinstance(one, AskApproval)] == [
            AskApproval(call.call_id, call.server_label or "", call.tool or "", call.arguments, TERMS)
            for call in waiting
        ]
        shown = [one.event for one in out if isinstance(one, Emit)]
        # The machine answers for the server exactly when the server cannot be asked.
        answered = [one.result for one in shown if isinstance(one, ToolReturned)]
        assert [result.call_id for result in answered] == [call.call_id for call in bad]
        assert all(result.error is not None and result.output for result in answered)
        found = [one for one in shown if isinstance(one, ToolsFound)]
        assert [one.call_id for one in found] == [call.call_id for call in searches]
        self._laws_of_a_search(found)
        turn.results = {result.call_id: result for result in answered}
        turn.results |= {one.call_id: ToolResult(one.call_id, found_text(one.tools)) for one in found}
        turn.results |= {call.call_id: self._refusal(call, out) for call in refused}
        if good:
            assert self.machine.phase is Phase.CALLING
            self._only_what_was_asked_is_answered()
        else:
            self._after_turn(out, reason)

    def _laws_of_a_search(self, found: Sequence[ToolsFound]) -> None:
        """What is found was not shown, is a deferred server's, and is shown from now on in that order."""
        for one in found:
            for tool in one.tools:
                assert tool.server_label in self.deferred
                assert tool.name not in {*self.turn.tools, *(each.name for each in self.found)}
                self.found.append(tool)

    def _refusal(self, call: ToolCall, out: Sequence[OutEvent]) -> ToolResult:
        """What the model is told of a call that was refused: an error, which nobody else sees."""
        told = [one.request.items for one in out if isinstance(one, CallModel)]
        results = [item for item in told[0] if isinstance(item, ToolResult)] if told else []
        mine = [item for item in results[-len(self.turn.ended) :] if item.call_id == call.call_id]
        if mine:
            assert mine[-1].error is not None
            return mine[-1]
        return ToolResult(call.call_id, "refused")

    # ── CALLING ───────────────────────────────────────────────────────────────

    def _only_what_was_asked_is_answered(self) -> None:
        """A call that is made has no approval to wait for, and one that waits for it asks nothing else."""
        for call_id in self.turn.asked:
            call = next(call for call in self.turn.ended if call.call_id == call_id)
            wrong: InEvent = ApprovalOpened(call_id, "mcpr_x", "s", "add", "{}")
            if call.tool == ASKS:
                # It is not made, so it cannot ask the user anything either.
                wrong = Elicited(call_id, "mcpe_x", "s", "add", "{}", QUESTIONS)
            with pytest.raises(LocalProtocolError):
                self.machine.feed(wrong)

    @staticmethod
    def _is_made(call: ToolCall) -> bool:
        """Whether the call is made, and not asked about first."""
        return call.tool != ASKS or call.approval_id is not None

    def _tool_returns(self, data: st.DataObject) -> None:
        turn = self.turn
        waiting = [each for each in turn.asked if each not in turn.results and each not in turn.requests]
        call_id = pick(data, waiting)
        call = next(call for call in turn.ended if call.call_id == call_id)
        if not self._is_made(call):
            came: Any = ApprovalOpened(call_id, f"mcpr_{call_id}", call.server_label or "", ASKS, call.arguments)
            turn.requests[call_id] = came
            out = self._feed(came)
        elif pick(data, [False, False, False, True]):
            label, tool = call.server_label or "", call.tool or ""
            questions = tuple(
                structs.replace(question, id=part_of(f"mcpe_{call_id}", number))
                for number, question in enumerate(QUESTIONS[: pick(data, [1, 2])], start=1)
            )
            came = Elicited(call_id, f"mcpe_{call_id}", label, tool, call.arguments, questions)
            turn.requests[call_id] = came
            first, *out = self._feed(came)
            assert first == Emit(Suspended(call_id))
        else:
            result = ToolResult(call_id, f"result {self.steps}", pick(data, ERRORS))
            turn.results[call_id] = result
            came = ToolReturned(result)
            first, *out = self._feed(came)
            assert first == Emit(came)
        if len(waiting) > 1:
            assert out == []
            with pytest.raises(LocalProtocolError):
                self.machine.feed(came)
            return
        requests = [Emit(turn.requests[each.call_id]) for each in turn.ended if each.call_id in turn.requests]
        assert out[: len(requests)] == requests
        turn.results |= {
            each.call_id: self._refusal(each, out) for each in turn.ended if turn.fates.get(each.call_id) == "refused"
        }
        self._after_turn(out[len(requests) :], "tool_calls")

    # ── the ends from outside ─────────────────────────────────────────────────

    @property
    def _steered_end(self) -> Finish:
        return Finish("incomplete", self.usage, "steered")

    def _cut_short(self, data: st.DataObject) -> None:
        if pick(data, [True, False]):
            self._steer()
            return
        ends = [TurnFailed(FAILURE)] if self.machine.phase is Phase.SAMPLING else []
        end = pick(data, [Cancel(), Abort(FAILURE), *ends])
        status = "cancelled" if isinstance(end, Cancel) else "failed"
        failure = None if isinstance(end, Cancel) else FAILURE
        assert self._feed(end) == [Finish(status, self.usage, failure=failure)]

    def _steer(self) -> None:
        """A turn that has begun no call ends here; otherwise everything that was begun is done, and no more."""
        self.steered, self.cut = True, None
        torn = self.machine.phase is Phase.SAMPLING and not set(self.turn.fates.values()) - {"dropped"}
        assert self._feed(Steered()) == ([self._steered_end] if torn else [])

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
        elif not self.turn.ended or self.turn.open:
            # Nothing to go on with, or something that only the client can answer.
            finish = Finish("completed", self.usage)
        elif self.steered:
            finish = self._steered_end
        elif limit is not None and self.usage.output_tokens >= limit:
            finish = Finish("incomplete", self.usage, "max_output_tokens")
        assert self.machine.finish == finish
        self._take_turn(out)

    def _take_turn(self, out: Sequence[OutEvent]) -> None:
        """Begin the model turn that was asked for, if one was."""
        for request in [one.request for one in out if isinstance(one, CallModel)]:
            self._laws_of_a_turn(request)
            first = not any(turn.begun for turn in self.turns) and len(self.turns) == bool(self.first)
            held = self.allowed is not None and (self.allowed.lasting or first)
            turn = Turn(request, self.left, self.allowed if held else None)
            turn.silent = self.request.tool_choice == "none"
            self.turns.append(turn)

    def _laws_of_a_turn(self, request: TurnRequest) -> None:
        said = [item for turn in self.turns for item in turn.said]
        assert list(request.items) == [*self.request.items, *said]
        self._laws_of_the_tools(request.tools)
        limit = self.request.sampling.max_output_tokens
        left = None if limit is None else limit - self.usage.output_tokens
        assert left is None or left > 0
        assert request.sampling == structs.replace(self.request.sampling, max_output_tokens=left)
        assert request.tool_choice == self._choice(request)
        rest: dict[str, Any] = {"items": (), "tools": (), "sampling": Sampling(), "tool_choice": "auto"}
        assert structs.replace(request, **rest) == structs.replace(self.request, **rest)

    def _laws_of_the_tools(self, tools: Sequence[ToolSpec]) -> None:
        """The client's, then each server's, then what was found; what was there once stays where it is."""
        client = len(self.request.tools)
        assert tools[:client] == self.request.tools
        seen = [label for label in self.servers if label not in self.deferred]
        owned = [(label, name) for label in seen for name in sorted(tool.name for tool in self.listings[label])]
        last = client + len(owned)
        assert [(tool.server_label, tool.tool) for tool in tools[client:last]] == owned
        assert list(tools[last:]) == self.found
        assert len({tool.name for tool in tools}) == len(tools)

    def _choice(self, request: TurnRequest) -> ToolChoice:
        asked = self.request.tool_choice
        if self.left == 0 and request.tools and all(Turn.is_gateways(tool) for tool in request.tools):
            return "none"
        if asked == "none" or len(self.turns) > bool(self.first):
            return "none" if asked == "none" else "auto"
        able = [tool for tool in request.tools if self.allowed is not None and self.allowed.allows(tool)]
        return NamedTool(able[0].name) if asked == "required" and len(able) == 1 else asked

    # ── the whole run ─────────────────────────────────────────────────────────

    def teardown(self) -> None:
        every = [one for out in self.out for one in out]
        executed = [one for one in every if isinstance(one, CallTool) and not one.again]
        first = [
            one for fed, out in zip(self.fed, self.out, strict=True) for one in out if not isinstance(fed, Resumed)
        ]
        listed = [one.server_label for one in first if isinstance(one, ListTools)]
        assert sum(isinstance(one, Finish) for one in every) == (self.machine.phase is Phase.DONE)
        assert self.machine.usage == self.usage
        assert len(executed) <= max(self.budget, len(self.first))
        assert len({one.approved for one in executed if one.approved}) == sum(
            one.approved is not None for one in executed
        )
        assert not [one for one in executed if one.tool == ASKS and one.approved is None]
        assert len(listed) == len(set(listed))
        assert all(isinstance(json.loads(one.arguments), dict) for one in executed)
        self._replays()
        event(f"turns: {min(len(self.turns), 6)}")
        event(f"ended: {self.machine.finish.status if self.machine.finish else 'not yet'}")
        fates = {fate for turn in self.turns for fate in turn.fates.values()}
        event(f"fates: {sorted(fates)}")
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
