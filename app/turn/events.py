"""The alphabets of the loop: what a model turn says, what the machine is fed, what it asks for.

A backend yields `TurnEvent`s. The order it must keep: deltas of an item, then its `ItemDone`; reasoning, message and
each call are separate items; the last event is exactly one `TurnDone` or `TurnFailed`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from app.turn.errors import Failure
from app.turn.items import Item, Question, Terms, ToolError, ToolKind, ToolListing, ToolResult, ToolSpec
from app.turn.request import AllowedTools, TurnRequest
from app.turn.usage import Usage

# ── what a model turn says ────────────────────────────────────────────────────


class TextDelta(Struct, frozen=True, tag="text_delta"):
    """More text of the message being written. `logprobs` is a JSON array in the Responses shape, when asked for."""

    text: str
    logprobs: msgspec.Raw | None = None


class RefusalDelta(Struct, frozen=True, tag="refusal_delta"):
    """More text of a refusal."""

    text: str


class ReasoningDelta(Struct, frozen=True, tag="reasoning_delta"):
    """More thinking."""

    text: str


class CallDelta(Struct, frozen=True, tag="call_delta"):
    """More arguments of the call `call_id`; the first one of a call announces its `name` (arguments may be empty)."""

    call_id: str
    name: str
    arguments: str
    server_label: str | None = None
    tool: str | None = None
    kind: ToolKind = "function"
    namespace: str | None = None


class ItemDone(Struct, frozen=True, tag="item_done"):
    """The item is complete; it repeats everything its deltas said."""

    item: Item


class TurnDone(Struct, frozen=True, tag="turn_done"):
    """The model stopped."""

    reason: Literal["stop", "length", "tool_calls", "content_filter"]
    usage: Usage = Usage()


class TurnFailed(Struct, frozen=True, tag="turn_failed"):
    """The turn broke: open items stay open."""

    failure: Failure


Delta: TypeAlias = TextDelta | RefusalDelta | ReasoningDelta | CallDelta
TurnEvent: TypeAlias = Delta | ItemDone | TurnDone | TurnFailed

# Who is told of a delta at once, and says whether they took it.
Hear: TypeAlias = Callable[[Delta], bool]

# ── what else the machine is fed ──────────────────────────────────────────────


class Phase(Enum):
    """Where a response is."""

    IDLE = "idle"
    LISTING = "listing"
    SAMPLING = "sampling"
    CALLING = "calling"
    COMPACTING = "compacting"
    DONE = "done"

    # Looked up for every token; an enumeration's own is a function in Python.
    __hash__ = object.__hash__


class Role(Struct, frozen=True):
    """A hosted tool (`web_search` …) that the server labelled `server_label` plays."""

    kind: ToolKind
    server_label: str


class ApprovedCall(Struct, frozen=True):
    """A call a person has approved: to be made first of all, once, exactly so."""

    approval_id: str
    server_label: str
    tool: str
    arguments: str
    terms: Terms


class Approved(Struct, frozen=True):
    """A person's word for exactly one call, under these terms."""

    approval_id: str
    terms: Terms


class Answer(Struct, frozen=True):
    """What the user did about a question. `content` is a JSON object as text, where there is any."""

    action: Literal["accept", "decline", "cancel"]
    content: str = ""


class Reply(Struct, frozen=True):
    """The user's answers to what a call asked, in the order of its questions. `state` is what the tools need to go on
    with the call, and theirs alone."""

    elicitation_id: str
    state: bytes
    answers: tuple[Answer, ...]


class AnsweredCall(Struct, frozen=True):
    """A call whose questions the user has answered: to be gone on with first of all, once."""

    reply: Reply
    server_label: str
    tool: str
    arguments: str
    approved: Approved | None = None


class Window(Struct, frozen=True):
    """What may be done about a context that grows too long.

    `compact_now`: summarise it, and do nothing else. `compact_at`: summarise it when it reaches this many tokens.
    `truncate`: leave out the oldest items when the engine says that it is too long.
    """

    compact_now: bool = False
    compact_at: int | None = None
    truncate: bool = False


class Start(Struct, frozen=True, tag="start"):
    """Begin.

    `request` carries the context and the client's own tools. `servers` are the labels of all MCP servers, in request
    order; `known` are listings the context already holds, which need no asking. `max_tool_calls` bounds the calls the
    gateway makes.

    `added` are tools that appeared in the course of the context, in that order: found by a search, or given by the
    client; a deferred one counts only if it is among the tools of this request. `deferred` are servers whose tools are
    not shown until found, and `about` describes servers and namespaces to the search. `roles` are servers that play
    hosted tools. `approved` are calls to make first, and `answered` calls to go on with first.
    """

    request: TurnRequest
    servers: tuple[str, ...] = ()
    known: tuple[ToolListing, ...] = ()
    max_tool_calls: int = 128
    added: tuple[ToolSpec, ...] = ()
    deferred: tuple[str, ...] = ()
    about: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    roles: tuple[Role, ...] = ()
    approved: tuple[ApprovedCall, ...] = ()
    answered: tuple[AnsweredCall, ...] = ()
    allowed: AllowedTools | None = None
    window: Window = Window()


class ToolsListed(Struct, frozen=True, tag="tools_listed"):
    """A server answered tools/list, or failed to (`error`)."""

    server_label: str
    tools: tuple[ToolSpec, ...] = ()
    error: ToolError | None = None


class ToolReturned(Struct, frozen=True, tag="tool_returned"):
    """A tool call ended, well or not."""

    result: ToolResult


class ApprovalOpened(Struct, frozen=True, tag="approval_opened"):
    """The call `call_id` waits for a person's word under the id `approval_id`. Also shown, as it is."""

    call_id: str
    approval_id: str
    server_label: str
    tool: str
    arguments: str


class Elicited(Struct, frozen=True, tag="elicited"):
    """The call `call_id` has asked the user something, and waits for the answers under the id `elicitation_id`. Also
    shown, as it is."""

    call_id: str
    elicitation_id: str
    server_label: str
    tool: str
    arguments: str
    questions: tuple[Question, ...]


class Cancel(Struct, frozen=True, tag="cancel"):
    """Someone with the right to do so wants the response to end now."""


class Abort(Struct, frozen=True, tag="abort"):
    """The run cannot go on: deadline, shutdown, or a fault of ours."""

    failure: Failure


class Steered(Struct, frozen=True, tag="steered"):
    """The user has more to say, in a response of its own: this one is to end where nothing is lost by it."""


class Resumed(Struct, frozen=True, tag="resumed"):
    """Whoever ran this response is gone, and what it was waiting for will not come any more."""


InEvent: TypeAlias = (
    Start | ToolsListed | TurnEvent | ToolReturned | ApprovalOpened | Elicited | Steered | Cancel | Abort | Resumed
)

# ── what the machine asks for ─────────────────────────────────────────────────


class ListTools(Struct, frozen=True, tag="list_tools"):
    """Ask the server for its tools."""

    server_label: str


class CallModel(Struct, frozen=True, tag="call_model"):
    """Run one model turn."""

    request: TurnRequest


class CallTool(Struct, frozen=True, tag="call_tool"):
    """Execute `tool` of `server_label`. `arguments` is the model's string, known to be a JSON object.

    A tool that needs approval is not called without `approved`, nor under other terms than those.
    `key` is the same for every attempt at the call, and no other call's. `again`: whether an attempt was made that
    nobody knows the end of. With a `reply` the call has begun before, and goes on with that.
    """

    call_id: str
    server_label: str
    tool: str
    arguments: str
    approved: Approved | None = None
    key: str | None = None
    again: bool = False
    reply: Reply | None = None


class AskApproval(Struct, frozen=True, tag="ask_approval"):
    """Remember that this call waits for a person's word under `terms`, and say under which id."""

    call_id: str
    server_label: str
    tool: str
    arguments: str
    terms: Terms | None


class Suspended(Struct, frozen=True, tag="suspended"):
    """The call `call_id` ends here, without a result: it asks the user. What it asks is shown later. Only shown."""

    call_id: str


class ToolsFound(Struct, frozen=True, tag="tools_found"):
    """The search `call_id` found these tools; from now on the model sees them. Only shown."""

    call_id: str
    tools: tuple[ToolSpec, ...]


class Compacted(Struct, frozen=True, tag="compacted"):
    """What came before is replaced by this summary. Only shown."""

    summary: str


class TurnCut(Struct, frozen=True, tag="turn_cut"):
    """The model's turn broke off with the process that heard it: what it left open says no more."""


class Emit(Struct, frozen=True, tag="emit"):
    """Tell the client."""

    event: LoopEvent


class Finish(Struct, frozen=True, tag="finish"):
    """The response is over. `reason` explains `incomplete`; `failure` explains `failed`."""

    status: Literal["completed", "incomplete", "failed", "cancelled"]
    usage: Usage
    reason: str | None = None
    failure: Failure | None = None


# What an encoder sees. `ListTools` and `CallTool` are also shown: they announce an item before its result exists.
LoopEvent: TypeAlias = (
    TextDelta
    | RefusalDelta
    | ReasoningDelta
    | CallDelta
    | ItemDone
    | TurnCut
    | ListTools
    | ToolsListed
    | CallTool
    | ToolReturned
    | ApprovalOpened
    | Suspended
    | Elicited
    | ToolsFound
    | Compacted
)
OutEvent: TypeAlias = ListTools | CallModel | CallTool | AskApproval | Emit | Finish
