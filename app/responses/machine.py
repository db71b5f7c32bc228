"""The tool loop as a state machine: events in, effects out, no I/O.

Theory of operation
-------------------
A response is a conversation between two parties who never meet: the model, which says what it wants, and the world,
which does it. This file is the referee. It is fed what happened (`InEvent`) and answers with what must happen next
(`OutEvent`). It has no clock, mints no ids, awaits nothing and raises only when *we* break its rules. Whatever the
world does wrong arrives as an ordinary event: a listing with an error, a result with an error, a turn that failed.

    IDLE ──Start──▶ LISTING ──last ToolsListed──▶ SAMPLING ──TurnDone──▶ CALLING ──last ToolReturned──▶ SAMPLING …
                                                     └────────────── TurnDone, nothing left to do ──────────▶ DONE

What may happen in each phase, and which rule handles it, is the table `RULES`. An event that is not in the table is a
bug of ours and raises `LocalProtocolError`; `Cancel` and `Abort` are in every row except the last.

The rules that are easy to get wrong, and where SAMPLING ends:

* **Every call is answered before the next turn.** Engines refuse a context in which a call has no result. So a turn's
  results are added together, in the order of its calls, however they arrive. The order is also what keeps equal
  conversations equal byte for byte, and with them the engine's prefix cache.
* **The gateway's calls run before a client's call ends the response.** When one turn asks for both, ours are executed,
  and the response completes with only the client's calls open: those are the client's to answer.
* **Calls over the budget never happened.** `max_tool_calls` counts calls we make. The first delta of a call either
  takes from the budget or the call is dropped: not shown, not executed, not in the context. Once the budget is spent
  the model is told to call no more tools where that is possible, and a turn of dropped calls only is the last.
* **Arguments that are not a JSON object are the model's mistake, not an exception.** The call is answered with an error
  the model can read, without asking the server, and it still counts.
* **A forced tool choice holds for the first turn.** Kept any longer, it would never let the model answer.
* **`max_output_tokens` bounds the response, not a turn**: each turn gets what the earlier ones left.

Resumption needs nothing more than this file: feed a new machine the events an old one was fed, and it is the old one.
`Resumed` then says that what it waits for is lost. Listings are asked for again. A turn that broke off is asked for
again too, unless it had come to calls: those were said, so they are made. Calls that had been asked for are asked for
`again`, and whoever performs them knows which may be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import structs

from app.responses.naming import offered
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
    Resumed,
    Start,
    TextDelta,
    ToolReturned,
    ToolsListed,
    TurnCut,
    TurnDone,
    TurnFailed,
)
from app.turn.items import Item, ToolCall, ToolError, ToolResult, ToolSpec
from app.turn.request import ToolChoice, TurnRequest
from app.turn.usage import Usage

Status: TypeAlias = Literal["completed", "incomplete", "failed", "cancelled"]

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class ResponseMachine:
    """One response. Feed it what happened, do what it says."""

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.usage = Usage()
        self.finish: Finish | None = None
        self._request: TurnRequest | None = None
        self._listings: dict[str, Sequence[ToolSpec]] = {}
        self._tools: dict[str, ToolSpec] = {}
        self._unlisted: set[str] = set()
        self._said: list[Item] = []
        self._turn = _Turn()
        self._budget = 0
        self._turns = 0
        self._asked: dict[str, CallTool] = {}

    @property
    def turns(self) -> int:
        """How many turns the model was asked for."""
        return self._turns

    def feed(self, event: InEvent) -> list[OutEvent]:
        """Advance by one event.

        Raises `LocalProtocolError` when the phase does not accept it, or when it answers something nobody asked.
        """
        rule = RULES[self.phase].get(type(event))
        if rule is None:
            raise LocalProtocolError(f"{type(event).__name__} in phase {self.phase.name}")
        out = rule(self, event)
        self._asked |= {each.call_id: each for each in out if isinstance(each, CallTool)}
        return out

    # ── IDLE, LISTING ─────────────────────────────────────────────────────────

    def start(self, event: Start) -> list[OutEvent]:
        known = {listing.server_label: listing.tools for listing in event.known}
        self._request, self._budget = event.request, event.max_tool_calls
        # The keys fix the order of servers now, whichever answers first.
        self._listings = {label: known.get(label, ()) for label in event.servers}
        self._unlisted = {label for label in event.servers if label not in known}
        self.phase = Phase.LISTING
        if not self._unlisted:
            return self._sample()
        asked = [ListTools(label) for label in event.servers if label in self._unlisted]
        return [out for ask in asked for out in (Emit(ask), ask)]

    def listed(self, event: ToolsListed) -> list[OutEvent]:
        if event.server_label not in self._unlisted:
            raise LocalProtocolError(f"unasked listing of {event.server_label!r}")
        self._unlisted.discard(event.server_label)
        self._listings[event.server_label] = event.tools
        return [Emit(event), *([] if self._unlisted else self._sample())]

    # ── SAMPLING ──────────────────────────────────────────────────────────────

    def delta(self, event: TextDelta | RefusalDelta | ReasoningDelta) -> list[OutEvent]:
        return [Emit(event)]

    def call_delta(self, event: CallDelta) -> list[OutEvent]:
        if not self._admit(event.call_id, event.name):
            return []
        owner = self._tools.get(event.name)
        if owner is None or owner.server_label is None:
            return [Emit(event)]
        return [Emit(structs.replace(event, server_label=owner.server_label, tool=owner.tool))]

    def item_done(self, event: ItemDone) -> list[OutEvent]:
        item = event.item
        if not isinstance(item, ToolCall):
            self._said.append(item)
            return [Emit(event)]
        if not self._admit(item.call_id, item.name):
            return []
        if any(call.call_id == item.call_id for call in self._turn.calls):
            raise LocalProtocolError(f"second end of call {item.call_id!r}")
        owner = self._tools.get(item.name)
        if owner is not None and owner.server_label is not None:
            # Engines may send nothing at all for "no arguments".
            arguments = item.arguments.strip() or "{}"
            item = structs.replace(item, server_label=owner.server_label, tool=owner.tool, arguments=arguments)
        self._said.append(item)
        self._turn.calls.append(item)
        return [Emit(ItemDone(item))]

    def turn_done(self, event: TurnDone) -> list[OutEvent]:
        self.usage += event.usage
        if event.reason == "length":
            return self._finish("incomplete", reason="max_output_tokens")
        if event.reason == "content_filter":
            return self._finish("incomplete", reason="content_filter")
        return self._act()

    def _act(self) -> list[OutEvent]:
        """Do what the turn asks for."""
        ours = [call for call in self._turn.calls if call.server_label is not None]
        if not ours:
            return self._finish("completed")
        self.phase = Phase.CALLING
        self._turn.awaited = {call.call_id for call in ours}
        out: list[OutEvent] = []
        for call in ours:
            out += self._ask(call)
        return out

    def turn_failed(self, event: TurnFailed) -> list[OutEvent]:
        return self._finish("failed", failure=event.failure)

    # ── CALLING ───────────────────────────────────────────────────────────────

    def returned(self, event: ToolReturned) -> list[OutEvent]:
        result = event.result
        if result.call_id not in self._turn.awaited:
            raise LocalProtocolError(f"unasked result of {result.call_id!r}")
        self._turn.awaited.discard(result.call_id)
        self._turn.results[result.call_id] = result
        return [Emit(event), *([] if self._turn.awaited else self._turn_answered())]

    # ── any phase ─────────────────────────────────────────────────────────────

    def cancel(self, _event: Cancel) -> list[OutEvent]:
        return self._finish("cancelled")

    def abort(self, event: Abort) -> list[OutEvent]:
        return self._finish("failed", failure=event.failure)

    def resumed(self, _event: Resumed) -> list[OutEvent]:
        if self.phase is Phase.LISTING:
            return [ListTools(label) for label in self._listings if label in self._unlisted]
        if self.phase is Phase.CALLING:
            open_calls = [call.call_id for call in self._turn.calls if call.call_id in self._turn.awaited]
            return [structs.replace(self._asked[call_id], again=True) for call_id in open_calls]
        if self._turn.calls:
            return [Emit(TurnCut()), *self._act()]
        # The turn did not come to anything that counts: neither as a turn nor against the budget.
        self._turns -= 1
        self._budget += sum(self._turn.paid.values())
        return [Emit(TurnCut()), *self._sample()]

    # ── decisions ─────────────────────────────────────────────────────────────

    def _admit(self, call_id: str, name: str) -> bool:
        """Whether the call exists. Decided once, when it is first heard of; the gateway's calls pay for it."""
        if call_id not in self._turn.admitted:
            owner = self._tools.get(name)
            ours = owner is not None and owner.server_label is not None
            self._turn.admitted[call_id] = not ours or self._budget > 0
            self._turn.paid[call_id] = 1 if ours and self._budget > 0 else 0
            self._budget -= self._turn.paid[call_id]
        return self._turn.admitted[call_id]

    def _ask(self, call: ToolCall) -> list[OutEvent]:
        """Execute the call, or answer it ourselves when its arguments are no JSON object."""
        try:
            _OBJECT.decode(call.arguments)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            message = "The arguments are not a JSON object. Call the tool again with a JSON object as its arguments."
            error = ToolError("mcp_protocol_error", message, -32602)
            return self.returned(ToolReturned(ToolResult(call.call_id, message, error)))
        ask = CallTool(call.call_id, call.server_label or "", call.tool or call.name, call.arguments)
        return [Emit(ask), ask]

    def _turn_answered(self) -> list[OutEvent]:
        calls = self._turn.calls
        self._said += [self._turn.results[call.call_id] for call in calls if call.server_label is not None]
        if any(call.server_label is None for call in calls):
            return self._finish("completed")
        return self._sample()

    def _sample(self) -> list[OutEvent]:
        assert self._request is not None
        request = self._request
        if self._turns == 0:
            tools = offered(request.tools, self._listings)
            self._tools = {tool.name: tool for tool in tools}
        sampling = request.sampling
        if sampling.max_output_tokens is not None:
            left = sampling.max_output_tokens - self.usage.output_tokens
            if left <= 0:
                return self._finish("incomplete", reason="max_output_tokens")
            sampling = structs.replace(sampling, max_output_tokens=left)
        self.phase, self._turn = Phase.SAMPLING, _Turn()
        self._turns += 1
        turn = structs.replace(
            request,
            items=(*request.items, *self._said),
            tools=tuple(self._tools.values()),
            tool_choice=self._choice(request),
            sampling=sampling,
        )
        return [CallModel(turn)]

    def _choice(self, request: TurnRequest) -> ToolChoice:
        if self._budget == 0 and not request.tools and self._tools:
            return "none"
        return request.tool_choice if self._turns == 1 or request.tool_choice == "none" else "auto"

    def _finish(self, status: Status, *, reason: str | None = None, failure: Failure | None = None) -> list[OutEvent]:
        self.phase, self.finish = Phase.DONE, Finish(status, self.usage, reason, failure)
        return [self.finish]


class _Turn:
    """What one model turn asked for, and what came back."""

    def __init__(self) -> None:
        self.admitted: dict[str, bool] = {}
        self.paid: dict[str, int] = {}
        self.calls: list[ToolCall] = []
        self.awaited: set[str] = set()
        self.results: dict[str, ToolResult] = {}


Rule: TypeAlias = Callable[[ResponseMachine, Any], list[OutEvent]]

_ALWAYS: dict[type, Rule] = {Cancel: ResponseMachine.cancel, Abort: ResponseMachine.abort}

# The whole law: what may happen in each phase, and which rule handles it.
RULES: dict[Phase, dict[type, Rule]] = {
    Phase.IDLE: {Start: ResponseMachine.start, **_ALWAYS},
    Phase.LISTING: {ToolsListed: ResponseMachine.listed, Resumed: ResponseMachine.resumed, **_ALWAYS},
    Phase.SAMPLING: {
        TextDelta: ResponseMachine.delta,
        RefusalDelta: ResponseMachine.delta,
        ReasoningDelta: ResponseMachine.delta,
        CallDelta: ResponseMachine.call_delta,
        ItemDone: ResponseMachine.item_done,
        TurnDone: ResponseMachine.turn_done,
        TurnFailed: ResponseMachine.turn_failed,
        Resumed: ResponseMachine.resumed,
        **_ALWAYS,
    },
    Phase.CALLING: {ToolReturned: ResponseMachine.returned, Resumed: ResponseMachine.resumed, **_ALWAYS},
    Phase.DONE: {},
}
