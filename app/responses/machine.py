"""The tool loop as a state machine: events in, effects out, no I/O.

Theory of operation
-------------------
A response is a conversation between two parties who never meet: the model, which says what it wants, and the world,
which does it. This file is the referee. It is fed what happened (`InEvent`) and answers with what must happen next
(`OutEvent`). It has no clock, mints no ids, awaits nothing and raises only when *we* break its rules. Whatever the
world does wrong arrives as an ordinary event: a listing with an error, a result with an error, a turn that failed.

    IDLE ──Start──▶ LISTING ──last ToolsListed──▶ SAMPLING ──TurnDone──▶ CALLING ──last answer──▶ SAMPLING …
                                    │      COMPACTING ▲ └────────── TurnDone, nothing left to do ──────▶ DONE
                                    └── approved, answered calls ──▶ CALLING

What may happen in each phase, and which rule handles it, is the table `RULES`. An event that is not in the table is a
bug of ours and raises `LocalProtocolError`; `Cancel` and `Abort` are in every row except the last. What the phases
share is in `course.py`, and how calls are made in `calling.py`.

The rules that are easy to get wrong, and where SAMPLING ends:

* **Every call is answered before the next turn.** Engines refuse a context in which a call has no result. So a turn's
  results are added together, in the order of its calls, however they arrive. The order is also what keeps equal
  conversations equal byte for byte, and with them the engine's prefix cache.
* **The gateway's calls run before a client's call ends the response.** When one turn asks for both, ours are executed,
  and the response completes with only the client's calls open: those are the client's to answer. A call that a person
  has to approve is like a client's: everything else of its turn runs, and the response completes with its request.
* **An approved call is made first, as it was approved, before the model is asked anything.** It pays from the budget
  and is made even if that is empty: it was paid for when it was asked about.
* **A call that asks the user ends the response, too, and is gone on with first in the next one.** It has begun, so it
  is shown, and ends without a result; what it asks is said when all calls of the turn have ended.
* **Calls that may not be made never happened, or are answered by us**; which, and who pays, is in `calls.py`. Once the
  budget is spent the model is told to call no more tools where that is possible, and a turn of dropped calls only is
  the last.
* **Arguments that are not a JSON object are the model's mistake, not an exception.** The call is answered with an error
  the model can read, without asking the server, and it still counts. Nobody is asked to approve such a call.
* **A forced tool choice holds for the first turn.** Kept any longer, it would never let the model answer.
* **`max_output_tokens` bounds the response, not a turn**: each turn gets what the earlier ones left.
* **Who has more to say does not wait, and no call is torn apart.** A turn that has begun no call is cut at once;
  calls that were begun are finished and answered, and no other turn is asked for.
* **A context is summarised at most once in a response**, before a turn, so that no answer is cut in two; and one that
  the engine finds too long is shortened until it fits or nothing is left to leave out (`window.py`).

Resumption needs nothing more than this file: feed a new machine the events an old one was fed, and it is the old one.
`Resumed` then says that what it waits for is lost. Listings are asked for again. A turn that broke off is asked for
again too, unless it had come to calls: those were said, so they are made. Calls that had been asked for are asked for
`again`, and whoever performs them knows which may be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from app.responses.calling import Calling
from app.responses.calls import NOT_ALLOWED, Budget, is_object, is_shown_early, misfit, owned
from app.responses.course import CUT, STEERED
from app.responses.listing import Listings
from app.responses.toolset import Toolset
from app.responses.window import NO_SUMMARY, TOO_LONG, Conversation
from app.turn.errors import LocalProtocolError
from app.turn.events import (
    Abort,
    ApprovalOpened,
    CallDelta,
    Cancel,
    Compacted,
    Elicited,
    Emit,
    InEvent,
    ItemDone,
    OutEvent,
    Phase,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Start,
    Steered,
    TextDelta,
    ToolReturned,
    ToolsListed,
    TurnCut,
    TurnDone,
    TurnFailed,
)
from app.turn.items import Message, ToolCall


class ResponseMachine(Calling):
    """One response. Feed it what happened, do what it says."""

    def feed(self, event: InEvent) -> list[OutEvent]:
        """Advance by one event.

        Raises `LocalProtocolError` when the phase does not accept it, or when it answers something nobody asked.
        """
        rule = RULES[self.phase].get(type(event))
        if rule is None:
            raise LocalProtocolError(f"{type(event).__name__} in phase {self.phase.name}")
        out = rule(self, event)
        self._turn.remember(out)
        return out

    # ── IDLE, LISTING ─────────────────────────────────────────────────────────

    def start(self, event: Start) -> list[OutEvent]:
        self._start, self._budget = event, Budget(event.max_tool_calls)
        self._listings = Listings(event)
        self.phase = Phase.LISTING
        return self._listings.ask() or self._ready()

    def listed(self, event: ToolsListed) -> list[OutEvent]:
        listings = self._listings
        shown, missing = listings.take(event), listings.missing(event)
        if missing is not None:
            return self._finish("failed", failure=missing)
        return [*shown, *([] if listings.unlisted else self._ready())]

    def _ready(self) -> list[OutEvent]:
        """All tools are known: make the calls that people have agreed to or answered, or ask the model."""
        start = self._begun
        self._tools = Toolset(start, self._listings.tools)
        self._talk = Conversation(self._tools.rename(start.request.items))
        return self._make_first() if start.approved or start.answered else self._sample()

    # ── SAMPLING ──────────────────────────────────────────────────────────────

    def delta(self, event: TextDelta | RefusalDelta | ReasoningDelta) -> list[OutEvent]:
        self._turn.quiet = False
        return [Emit(event)]

    def call_delta(self, event: CallDelta) -> list[OutEvent]:
        owner = self._owner(event.name)
        if self._turn.hear(event.call_id, owner) != "kept" or not is_shown_early(owner):
            return []
        self._turn.quiet = False
        return [Emit(owned(event, owner))]

    def item_done(self, event: ItemDone) -> list[OutEvent]:
        item = event.item
        if isinstance(item, ToolCall):
            return self._call_done(item)
        self._turn.quiet = False
        self._talk.add(item)
        if isinstance(item, Message):
            self._turn.text = item.text
        return [Emit(event)]

    def _call_done(self, said: ToolCall) -> list[OutEvent]:
        owner = self._owner(said.name)
        fate = self._turn.hear(said.call_id, owner)
        if self._turn.ended(said.call_id):
            raise LocalProtocolError(f"second end of call {said.call_id!r}")
        call = owned(said, owner)
        why = NOT_ALLOWED if fate == "refused" else misfit(owner, call.arguments)
        if fate == "dropped" or (why is not None and not self._turn.refuse(call, why)):
            return []
        self._talk.add(call)
        self._turn.calls.append(call)
        if why is not None:
            return []
        if owner is not None and owner.approval == "ask" and is_object(call.arguments):
            self._turn.asked.add(call.call_id)
            return []
        self._turn.quiet = False
        return [Emit(ItemDone(call))]

    def turn_done(self, event: TurnDone) -> list[OutEvent]:
        return self._counted(event) or (self._act() if self._turn.calls else self._answered())

    def _counted(self, event: TurnDone) -> list[OutEvent]:
        """Count what the turn used; the end of the response if it was cut off."""
        self.usage += event.usage
        self._talk.count(event.usage)
        return self._finish("incomplete", reason=CUT[event.reason]) if event.reason in CUT else []

    def turn_failed(self, event: TurnFailed) -> list[OutEvent]:
        too_long = event.failure.code == TOO_LONG and self._turn.quiet and self._begun.window.truncate
        if not too_long or not self._talk.shorten():
            return self._finish("failed", failure=event.failure)
        return self._summarise() if self.phase is Phase.COMPACTING else self._sample()

    # ── COMPACTING ────────────────────────────────────────────────────────────

    def unshown(self, _event: TextDelta | RefusalDelta | ReasoningDelta | CallDelta) -> list[OutEvent]:
        """The client sees the summary as a whole, and in no other form."""
        return []

    def summary_item(self, event: ItemDone) -> list[OutEvent]:
        if isinstance(event.item, Message):
            self._turn.text += event.item.text
        return []

    def summarised(self, event: TurnDone) -> list[OutEvent]:
        if cut := self._counted(event):
            return cut
        summary = self._turn.text.strip()
        if not summary:
            return self._finish("failed", failure=NO_SUMMARY)
        self._talk.compact(summary)
        rest = self._finish("completed") if self._begun.window.compact_now else self._sample()
        return [Emit(Compacted(summary)), *rest]

    # ── any phase ─────────────────────────────────────────────────────────────

    def cancel(self, _event: Cancel) -> list[OutEvent]:
        return self._finish("cancelled")

    def abort(self, event: Abort) -> list[OutEvent]:
        return self._finish("failed", failure=event.failure)

    def steered(self, _event: Steered) -> list[OutEvent]:
        self._steered = True
        cut = self.phase is Phase.SAMPLING and not self._turn.calling
        return self._finish("incomplete", reason=STEERED) if cut else []

    def resumed(self, _event: Resumed) -> list[OutEvent]:
        if self.phase is Phase.LISTING:
            return [*self._listings.ask_again()]
        if self.phase is Phase.CALLING:
            return self._turn.ask_again()
        if self.phase is Phase.COMPACTING:
            return self._summarise()
        if self._turn.calls:
            return [Emit(TurnCut()), *self._act()]
        # The turn did not come to anything that counts: neither as a turn nor against the budget.
        self.turns -= 1
        self._budget.left += self._turn.paid
        return [Emit(TurnCut()), *self._sample()]


Rule: TypeAlias = Callable[[ResponseMachine, Any], list[OutEvent]]

_DELTAS = (TextDelta, RefusalDelta, ReasoningDelta)
_ENDS: dict[type, Rule] = {Cancel: ResponseMachine.cancel, Abort: ResponseMachine.abort}
_ALWAYS: dict[type, Rule] = {**_ENDS, Resumed: ResponseMachine.resumed, Steered: ResponseMachine.steered}

# The whole law: what may happen in each phase, and which rule handles it.
RULES: dict[Phase, dict[type, Rule]] = {
    Phase.IDLE: {Start: ResponseMachine.start, **_ENDS},
    Phase.LISTING: {ToolsListed: ResponseMachine.listed, **_ALWAYS},
    Phase.SAMPLING: {
        **dict.fromkeys(_DELTAS, ResponseMachine.delta),
        CallDelta: ResponseMachine.call_delta,
        ItemDone: ResponseMachine.item_done,
        TurnDone: ResponseMachine.turn_done,
        TurnFailed: ResponseMachine.turn_failed,
        **_ALWAYS,
    },
    Phase.CALLING: {
        ToolReturned: ResponseMachine.returned,
        ApprovalOpened: ResponseMachine.opened,
        Elicited: ResponseMachine.elicited,
        **_ALWAYS,
    },
    Phase.COMPACTING: {
        **dict.fromkeys((*_DELTAS, CallDelta), ResponseMachine.unshown),
        ItemDone: ResponseMachine.summary_item,
        TurnDone: ResponseMachine.summarised,
        TurnFailed: ResponseMachine.turn_failed,
        **_ALWAYS,
    },
    Phase.DONE: {},
}
