"""The calls of one model turn: which of them exist, what becomes of each, and what came back.

A call the model makes has one of four fates, decided when it is first heard of and never revised for the better:

* **kept**: it is the client's to answer, or the gateway makes it;
* **asked about**: the gateway would make it, but a person has to agree first. The client sees a request for approval
  and nothing else of it;
* **refused**: it must not be made, or cannot be: it is outside what the request allows, or its arguments do not fit a
  tool whose calls have a shape. The client sees nothing of it; the model is told why and may do better;
* **dropped**: it never happened. Calls over `max_tool_calls`, a second call where calls must not be parallel, and any
  call where the request wants none.

What the gateway makes, asks about or refuses pays from the budget, so that a model that never learns comes to an end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct, structs

from app.responses.promised import unfit
from app.turn.events import (
    AnsweredCall,
    ApprovalOpened,
    Approved,
    ApprovedCall,
    AskApproval,
    CallDelta,
    CallTool,
    Elicited,
    OutEvent,
    Start,
)
from app.turn.items import ToolCall, ToolError, ToolKind, ToolResult, ToolSpec
from app.turn.request import AllowedTools

Said = TypeVar("Said", CallDelta, ToolCall)
Fate: TypeAlias = Literal["kept", "refused", "dropped"]

# Calls of these are shown as items whose fields are made from the arguments, so the arguments have to fit.
SHAPED: frozenset[ToolKind] = frozenset(("shell", "local_shell", "apply_patch", "computer", "computer_use_preview"))
_SEARCHES: frozenset[ToolKind] = frozenset(("tool_search", "server_tool_search"))
# Calls of these are shown while they are being written.
_SHOWN_EARLY: frozenset[ToolKind] = frozenset(("function", "custom"))

_ASKING = (CallTool, AskApproval)

NOT_ALLOWED = "This tool may not be called in this response. Call one of the allowed tools, or answer without."
NO_OBJECT = "The arguments are not a JSON object. Call the tool again with a JSON object as its arguments."

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_given = msgspec.json.Decoder(dict[str, Any])


class Rules(Struct, frozen=True):
    """What a turn may do. `silent`: it may call nothing at all."""

    silent: bool = False
    parallel: bool = True
    allowed: AllowedTools | None = None

    @classmethod
    def of(cls, start: Start, turn: int) -> Rules:
        """The rules of the response's turn number `turn`, counted from 1."""
        allowed = start.allowed
        return cls(
            silent=start.request.tool_choice == "none",
            parallel=start.request.parallel_tool_calls,
            allowed=allowed if allowed is not None and (allowed.lasting or turn == 1) else None,
        )


class Budget:
    """How many calls the gateway may still make."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def pay(self) -> bool:
        """Take one; False when there is none."""
        if self.left <= 0:
            return False
        self.left -= 1
        return True


class Turn:
    """What one model turn asked for, and what came back."""

    def __init__(self, rules: Rules | None = None, budget: Budget | None = None) -> None:
        self.quiet = True
        self.text = ""
        self.calls: list[ToolCall] = []
        self.asked: set[str] = set()
        self.awaited: set[str] = set()
        self.results: dict[str, ToolResult] = {}
        self._rules = Rules() if rules is None else rules
        self._budget = Budget(0) if budget is None else budget
        self._fates: dict[str, Fate] = {}
        self._requests: dict[str, ApprovalOpened | Elicited] = {}
        self._asked: dict[str, CallTool | AskApproval] = {}
        self.paid = 0

    def hear(self, call_id: str, owner: ToolSpec | None) -> Fate:
        """The fate of a call as far as its tool tells, decided when it is first heard of."""
        if call_id not in self._fates:
            self._fates[call_id] = self._decide(owner)
        return self._fates[call_id]

    def refuse(self, call: ToolCall, why: str) -> bool:
        """Answer the call in place of whoever it was for; False when it is dropped instead."""
        if self._fates[call.call_id] == "kept" and not is_ours(call) and not self._pay():
            self._fates[call.call_id] = "dropped"
            return False
        self._fates[call.call_id] = "refused"
        self.results[call.call_id] = refusal(call, why)
        return True

    def is_refused(self, call_id: str) -> bool:
        """Whether the call is one the client sees nothing of."""
        return self._fates.get(call_id) == "refused"

    @property
    def calling(self) -> bool:
        """Whether the model has begun a call that exists."""
        return any(fate != "dropped" for fate in self._fates.values())

    def ended(self, call_id: str) -> bool:
        """Whether the call is complete."""
        return any(call.call_id == call_id for call in self.calls)

    def answer(self, call_id: str, came: ToolResult | ApprovalOpened | Elicited) -> None:
        """What was awaited for the call has come: its result, or what a person is asked about it."""
        self.awaited.discard(call_id)
        if isinstance(came, ToolResult):
            self.results[call_id] = came
        else:
            self._requests[call_id] = came

    def requests(self) -> list[ApprovalOpened | Elicited]:
        """What people are asked, in the order of the calls."""
        return [self._requests[call.call_id] for call in self.calls if call.call_id in self._requests]

    def expect(self, call: ToolCall) -> None:
        """A call that is made without the model's asking now."""
        self.calls.append(call)
        self.awaited.add(call.call_id)

    def remember(self, out: Sequence[OutEvent]) -> None:
        """What the world is asked, for when its answer is lost."""
        for each in out:
            if isinstance(each, _ASKING):
                self._asked[each.call_id] = each

    def ask_again(self) -> list[OutEvent]:
        """What was asked and never answered."""
        lost = [self._asked[call.call_id] for call in self.calls if call.call_id in self.awaited]
        return [structs.replace(each, again=True) if isinstance(each, CallTool) else each for each in lost]

    def answers(self) -> list[ToolResult]:
        """The results there are, in the order of their calls."""
        return [self.results[call.call_id] for call in self.calls if call.call_id in self.results]

    @property
    def open(self) -> bool:
        """Whether somebody else has to answer a call before the model can go on."""
        return any(call.call_id not in self.results for call in self.calls)

    def _decide(self, owner: ToolSpec | None) -> Fate:
        rules = self._rules
        alone = rules.parallel or all(fate == "dropped" for fate in self._fates.values())
        if rules.silent or not alone:
            return "dropped"
        if rules.allowed is not None and (owner is None or not rules.allowed.allows(owner)):
            return "refused" if self._pay() else "dropped"
        if is_ours(owner) and not self._pay():
            return "dropped"
        return "kept"

    def _pay(self) -> bool:
        paid = self._budget.pay()
        self.paid += paid
        return paid


def is_ours(call: ToolCall | ToolSpec | None) -> bool:
    """Whether the gateway answers the call, or the tool's calls."""
    return call is not None and (call.server_label is not None or call.kind == "server_tool_search")


def is_shown_early(tool: ToolSpec | None) -> bool:
    """Whether the client may see a call of the tool before it is complete."""
    return tool is None or (tool.kind in _SHOWN_EARLY and tool.approval == "never")


def is_object(arguments: str) -> bool:
    """Whether the arguments are a JSON object."""
    try:
        _OBJECT.decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def misfit(tool: ToolSpec | None, arguments: str) -> str | None:
    """Why a call with these arguments cannot be shown as its kind of item; None when it can, as most can."""
    if tool is None or tool.kind not in SHAPED | _SEARCHES:
        return None
    try:
        # All of it: an object may hold numbers that nobody can read.
        given = _given.decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return NO_OBJECT
    why = None if tool.kind in _SEARCHES else unfit(tool.parameters, given)
    return None if why is None else f"The arguments do not fit the tool's schema: {why}. Call the tool again."


def approved_call(approved: ApprovedCall, name: str) -> ToolCall:
    """The call exactly as it was approved, by the `name` the model knows the tool by."""
    return ToolCall(
        approved.approval_id,
        name,
        approved.arguments,
        server_label=approved.server_label,
        tool=approved.tool,
        approval_id=approved.approval_id,
    )


def approved_ask(approved: ApprovedCall, call: ToolCall) -> CallTool:
    """Make that call, on the word of whoever approved it."""
    word = Approved(approved.approval_id, approved.terms)
    return CallTool(call.call_id, approved.server_label, approved.tool, approved.arguments, word)


def answered_call(answered: AnsweredCall, name: str) -> ToolCall:
    """The call that asked, by the `name` the model knows the tool by."""
    return ToolCall(
        answered.reply.elicitation_id,
        name,
        answered.arguments,
        server_label=answered.server_label,
        tool=answered.tool,
        approval_id=None if answered.approved is None else answered.approved.approval_id,
        elicitation_id=answered.reply.elicitation_id,
    )


def answered_ask(answered: AnsweredCall, call: ToolCall) -> CallTool:
    """Go on with that call, as it was approved and with what it was answered."""
    ask = CallTool(call.call_id, answered.server_label, answered.tool, answered.arguments, answered.approved)
    return structs.replace(ask, reply=answered.reply)


def owned(said: Said, owner: ToolSpec | None) -> Said:
    """What the model said, with whose tool it is about."""
    if owner is None:
        return said
    whose = {"server_label": owner.server_label, "tool": owner.tool, "kind": owner.kind, "namespace": owner.namespace}
    if isinstance(said, ToolCall) and is_ours(owner):
        # Engines may send nothing at all for "no arguments".
        return structs.replace(said, arguments=said.arguments.strip() or "{}", **whose)
    return structs.replace(said, **whose)


def refusal(call: ToolCall, why: str) -> ToolResult:
    """What the model is told of a call that nobody made."""
    return ToolResult(call.call_id, why, ToolError("mcp_protocol_error", why, -32602))
