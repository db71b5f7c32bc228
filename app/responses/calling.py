"""The phase in which calls are made: what of a turn the gateway does, and what becomes of what comes back.

Nothing of a turn goes on before all that was asked has come back. Then the results are added to the conversation, in
the order of the calls, and either the model goes on, or somebody else has the word first.
"""

from __future__ import annotations

from app.responses.calls import (
    NO_OBJECT,
    Turn,
    answered_ask,
    answered_call,
    approved_ask,
    approved_call,
    is_object,
    is_ours,
    refusal,
)
from app.responses.course import Course
from app.turn.errors import LocalProtocolError
from app.turn.events import (
    ApprovalOpened,
    AskApproval,
    CallTool,
    Elicited,
    Emit,
    ItemDone,
    OutEvent,
    Phase,
    Suspended,
    ToolReturned,
    ToolsFound,
)
from app.turn.found import found_text
from app.turn.items import ToolCall, ToolResult


class Calling(Course):
    """A response that makes calls."""

    def returned(self, event: ToolReturned) -> list[OutEvent]:
        return self._came(event.result.call_id, event.result, [Emit(event)])

    def opened(self, event: ApprovalOpened) -> list[OutEvent]:
        if event.call_id not in self._turn.asked:
            raise LocalProtocolError(f"unasked approval of {event.call_id!r}")
        return self._came(event.call_id, event, [])

    def elicited(self, event: Elicited) -> list[OutEvent]:
        if event.call_id in self._turn.asked:
            raise LocalProtocolError(f"{event.call_id!r} was not made, and cannot ask")
        # All calls that ask are ended before anything is asked: what is told about an item may have to wait for those
        # before it, and a question must not wait for another's call.
        return self._came(event.call_id, event, [Emit(Suspended(event.call_id))])

    def _came(
        self, call_id: str, came: ToolResult | ApprovalOpened | Elicited, shown: list[OutEvent]
    ) -> list[OutEvent]:
        if call_id not in self._turn.awaited:
            raise LocalProtocolError(f"unasked result of {call_id!r}")
        self._turn.answer(call_id, came)
        return [*shown, *([] if self._turn.awaited else self._turn_answered())]

    def _act(self) -> list[OutEvent]:
        """Do what the turn asks for."""
        self.phase = Phase.CALLING
        ours = [call for call in self._turn.calls if is_ours(call) and not self._turn.is_refused(call.call_id)]
        self._turn.awaited = {call.call_id for call in ours}
        if not ours:
            return self._turn_answered()
        return [out for call in ours for out in self._ask(call)]

    def _make_first(self) -> list[OutEvent]:
        """Make the calls that were approved, and go on with those that were answered, before anything else."""
        assert self._tools is not None
        self.phase, self._turn = Phase.CALLING, Turn()
        out: list[OutEvent] = []
        for approved in self._begun.approved:
            call = approved_call(approved, self._tools.named(approved.server_label, approved.tool))
            out += self._make(call, approved_ask(approved, call))
        for answered in self._begun.answered:
            call = answered_call(answered, self._tools.named(answered.server_label, answered.tool))
            out += self._make(call, answered_ask(answered, call))
        return out

    def _make(self, call: ToolCall, ask: CallTool) -> list[OutEvent]:
        self._budget.pay()
        self._talk.add(call)
        self._turn.expect(call)
        return [Emit(ItemDone(call)), Emit(ask), ask]

    def _ask(self, call: ToolCall) -> list[OutEvent]:
        """Execute the call; answer it ourselves where nobody else need be asked, or ask whether it may be made."""
        label, tool = call.server_label or "", call.tool or call.name
        if call.kind == "server_tool_search":
            return self._find(call)
        if not is_object(call.arguments):
            return self.returned(ToolReturned(refusal(call, NO_OBJECT)))
        if call.call_id in self._turn.asked:
            owner = self._owner(call.name)
            return [AskApproval(call.call_id, label, tool, call.arguments, owner.terms if owner else None)]
        ask = CallTool(call.call_id, label, tool, call.arguments)
        return [Emit(ask), ask]

    def _find(self, call: ToolCall) -> list[OutEvent]:
        assert self._tools is not None
        found = self._tools.find(call.arguments)
        self._tools.load(found)
        result = ToolResult(call.call_id, found_text(found))
        return self._came(call.call_id, result, [Emit(ToolsFound(call.call_id, found))])

    def _turn_answered(self) -> list[OutEvent]:
        self._talk.add(*self._turn.answers())
        requests = [Emit(request) for request in self._turn.requests()]
        return [*requests, *(self._finish("completed") if self._turn.open else self._sample())]
