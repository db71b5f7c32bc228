"""The alphabets of the loop: what a model turn says, what the machine is fed, what it asks for.

A backend yields `TurnEvent`s. The order it must keep: deltas of an item, then its `ItemDone`; reasoning, message and
each call are separate items; the last event is exactly one `TurnDone` or `TurnFailed`.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from app.turn.errors import Failure
from app.turn.items import Item, Terms, ToolError, ToolListing, ToolResult, ToolSpec
from app.turn.request import TurnRequest
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


TurnEvent: TypeAlias = TextDelta | RefusalDelta | ReasoningDelta | CallDelta | ItemDone | TurnDone | TurnFailed

# ── what else the machine is fed ──────────────────────────────────────────────


class Phase(Enum):
    """Where a response is."""

    IDLE = "idle"
    LISTING = "listing"
    SAMPLING = "sampling"
    CALLING = "calling"
    DONE = "done"


class Start(Struct, frozen=True, tag="start"):
    """Begin.

    `request` carries the context and the client's own tools. `servers` are the labels of all MCP servers, in request
    order; `known` are listings the context already holds, which need no asking. `max_tool_calls` bounds the calls the
    gateway makes.
    """

    request: TurnRequest
    servers: tuple[str, ...] = ()
    known: tuple[ToolListing, ...] = ()
    max_tool_calls: int = 128


class ToolsListed(Struct, frozen=True, tag="tools_listed"):
    """A server answered tools/list, or failed to (`error`)."""

    server_label: str
    tools: tuple[ToolSpec, ...] = ()
    error: ToolError | None = None


class ToolReturned(Struct, frozen=True, tag="tool_returned"):
    """A tool call ended, well or not."""

    result: ToolResult


class Cancel(Struct, frozen=True, tag="cancel"):
    """Someone with the right to do so wants the response to end now."""


class Abort(Struct, frozen=True, tag="abort"):
    """The run cannot go on: deadline, shutdown, or a fault of ours."""

    failure: Failure


class Resumed(Struct, frozen=True, tag="resumed"):
    """Whoever ran this response is gone, and what it was waiting for will not come any more."""


InEvent: TypeAlias = Start | ToolsListed | TurnEvent | ToolReturned | Cancel | Abort | Resumed

# ── what the machine asks for ─────────────────────────────────────────────────


class ListTools(Struct, frozen=True, tag="list_tools"):
    """Ask the server for its tools."""

    server_label: str


class CallModel(Struct, frozen=True, tag="call_model"):
    """Run one model turn."""

    request: TurnRequest


class Approved(Struct, frozen=True):
    """A person's word for exactly one call, under these terms."""

    approval_id: str
    terms: Terms


class CallTool(Struct, frozen=True, tag="call_tool"):
    """Execute `tool` of `server_label`. `arguments` is the model's string, known to be a JSON object.

    A tool that needs approval is not called without `approved`, nor under other terms than those.
    `key` is the same for every attempt at the call, and no other call's. `again`: whether an attempt was made that
    nobody knows the end of.
    """

    call_id: str
    server_label: str
    tool: str
    arguments: str
    approved: Approved | None = None
    key: str | None = None
    again: bool = False


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
)
OutEvent: TypeAlias = ListTools | CallModel | CallTool | Emit | Finish
