"""Ports: what the heart needs from the rooms around it. They belong to the one who needs them.

Every method that touches stored or shared state takes the tenant first. Adapters raise `GatewayError`s only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from app.dialects.openai_responses.events import Event
from app.responses.approving import Approval as Approval  # noqa: PLC0414 - who needs the port finds its values here
from app.responses.approving import Approvals
from app.responses.continuation import Continuation as Continuation  # noqa: PLC0414 - as above
from app.responses.eliciting import Asking, Elicitations
from app.responses.leases import Lease as Lease  # noqa: PLC0414 - as above
from app.responses.leases import LeaseLost as LeaseLost  # noqa: PLC0414 - as above
from app.responses.ledger import Ledger as Ledger  # noqa: PLC0414 - as above
from app.responses.stores import ConversationStore, ItemPage, PromptStore, TokenSealer
from app.turn.errors import GatewayError
from app.turn.events import CallTool, Hear, InEvent, ToolsListed, TurnEvent
from app.turn.ids import IdSource
from app.turn.items import StoredItem, ToolKind, ToolListing, ToolResult
from app.turn.request import McpServer, TurnRequest

# ── models ────────────────────────────────────────────────────────────────────


class ModelBackend(Protocol):
    """One engine or provider that can run a model turn."""

    def stream(self, request: TurnRequest, hear: Hear | None = None) -> AsyncIterator[TurnEvent]:
        """Run the turn. Yields at least the last event, `TurnDone` or `TurnFailed`; it does not raise for what the
        world does wrong. Closing the iterator early aborts the turn at the engine.

        While the next event is waited for, deltas may be given to `hear` as they come off the wire, which wakes nobody.
        One that it does not take is yielded, and so is everything else, in the order in which it was said."""
        ...


class RouteKey(Struct, frozen=True, kw_only=True):
    """What a placement may depend on.

    `run` is the response being made and `conversation` the one it goes on from: the prompt of a turn begins with
    theirs. `affinity` is what the client wants its turns kept together by, `target` the one worker it wants.
    `whole`: nobody sees anything of a turn before it is over, so one that breaks in the middle can be made again.
    """

    tenant: str
    model: str
    run: str | None = None
    conversation: str | None = None
    affinity: str | None = None
    target: str | None = None
    whole: bool = False


class RouteHints(Struct, frozen=True, kw_only=True):
    """What a client said beside its request about where it wants its turns: see `RouteKey`."""

    affinity: str | None = None
    target: str | None = None


NO_HINTS = RouteHints()


class ModelInfo(Struct, frozen=True):
    """A model some worker serves. `created` is in seconds since the epoch; an `adapter` (LoRA) adapts another one."""

    id: str
    created: int
    owned_by: str
    adapter: bool = False


class Fleet(Protocol):
    """The workers."""

    def lease(self, key: RouteKey, request: TurnRequest) -> AbstractAsyncContextManager[ModelBackend]:
        """Hold a worker for one turn. Raises `NotFound(code="model_not_found")` or `NoWorker`."""
        ...

    def models(self, tenant: str) -> Sequence[ModelInfo]:
        """The models that can be asked for now, by id."""
        ...

    def ensure_model(self, tenant: str, model: str, target: str | None = None) -> None:
        """Raise `NotFound(code="model_not_found", param="model")` when nobody serves `model`, `NoWorker` when no
        worker is known at all; `InvalidRequest` for a `target` that is none, `NoWorker` when it takes no turns."""
        ...


# ── tools ─────────────────────────────────────────────────────────────────────


class ToolSession(Protocol):
    """The MCP servers of one run. Names the server knows (`tool`), not those the model sees."""

    async def list_tools(self, server_label: str) -> ToolsListed:
        """The server's allowed tools, in its order, or the reason there are none. Does not raise for the server."""
        ...

    def recall(self, listing: ToolListing) -> ToolListing:
        """A listing that the context already holds, as it may be used now: without what is forbidden, and with
        `approval` and `terms` set. What it says of a tool is not believed where the server's own word is known."""
        ...

    async def call(self, call: CallTool) -> ToolResult | Asking:
        """Execute the call or go on with it. Does not raise for the server. Cancelling the awaiting task cancels it."""
        ...

    async def may_repeat(self, call: CallTool) -> bool:
        """Whether making the call twice does no more than making it once, by the operator's word."""
        ...


class ToolExecutor(Protocol):
    """Where sessions with MCP servers come from."""

    def open(
        self,
        tenant: str,
        servers: Sequence[McpServer],
        continuation: Continuation | None,
        principal: str = "",
        ledger: Ledger | None = None,
    ) -> AbstractAsyncContextManager[ToolSession]:
        """The tools of one run of `principal`; what their servers remember belongs to what the run continues, and what
        is told of its calls rides in `ledger`. Raises `InvalidRequest` for a label without a server."""
        ...

    def plays(self, role: ToolKind) -> bool:
        """Whether the operator has a server that plays this hosted tool."""
        ...


# ── history ───────────────────────────────────────────────────────────────────


class StoredResponse(Struct, frozen=True, kw_only=True):
    """A finished response. `snapshot` is its JSON without `output`, which is kept as items.

    One with a conversation builds on it, and becomes a part of it where it `joins`: if the conversation is still the
    version that the response was made from.
    It is forgotten at `expires_at` (seconds since the epoch; none: never). `end_user` is the request's
    `safety_identifier`; it is written, never read back.
    """

    id: str
    previous_id: str | None
    conversation_id: str | None = None
    conversation_version: int | None = None
    joins: bool = False
    created_at: int
    status: str
    model: str
    snapshot: msgspec.Raw
    input: tuple[StoredItem, ...]
    output: tuple[StoredItem, ...]
    expires_at: int | None = None
    end_user: str | None = None


class HistoryStore(Protocol):
    """What is remembered. A failed read or write raises `Unavailable`; nothing is half written."""

    async def find_items(self, tenant: str, item_ids: Sequence[str]) -> Mapping[str, StoredItem]:
        """Those of the items that are there, by their ids; of several with one id the newest."""
        ...

    async def context(self, tenant: str, response_id: str) -> Sequence[StoredItem]:
        """All items up to and including the response's output, oldest first.

        Raises `NotFound` when the response, or anything it builds on, is not there.
        """
        ...

    async def save(self, tenant: str, response: StoredResponse) -> None:
        """Store a finished response with its items in one transaction. Raises `Conflict` when the id is taken."""
        ...

    async def get(self, tenant: str, response_id: str) -> StoredResponse:
        """Raises `NotFound`."""
        ...

    async def delete(self, tenant: str, response_id: str) -> None:
        """Forget the response; what later responses build on stays loadable for them. Raises `NotFound`."""
        ...

    async def input_items(
        self,
        tenant: str,
        response_id: str,
        *,
        limit: int,
        order: Literal["asc", "desc"],
        after: str | None,
    ) -> ItemPage:
        """The items that were given to the response: its whole context and its own input, without its output.

        Raises `NotFound` for the response, `InvalidRequest(param="after")` when `after` is not one of the items.
        """
        ...


# ── runs and their logs ───────────────────────────────────────────────────────


class Entry(Struct, frozen=True):
    """What happened to a run in one moment: what it was fed (`steps`) and what it told its client about that."""

    steps: tuple[InEvent, ...]
    events: tuple[Event, ...]


class NewRun(Struct, frozen=True, kw_only=True):
    """A response about to be made. `request` is whatever its maker needs to begin again, kept only while it is made;
    none for one that is not remembered, and only holds its conversation.

    `created_at` is in seconds since the epoch. No other run can have the `conversation_id` meanwhile, and nobody
    changes the conversation, which has to be of the `conversation_version` where there is one.
    """

    tenant: str
    response_id: str
    background: bool
    created_at: int
    request: bytes | None
    conversation_id: str | None = None
    conversation_version: int | None = None


class OpenRun(Struct, frozen=True, kw_only=True):
    """A run this process now owns. `cancelled`: somebody asked for its end. Without a `request` it is only to `end`."""

    lease: Lease
    background: bool
    cancelled: bool
    created_at: int
    request: bytes | None
    entries: tuple[Entry, ...]


class RunState(Struct, frozen=True):
    """A run as others see it. `waiting`: nobody makes it now."""

    background: bool
    cancelled: bool
    waiting: bool


class Held(Struct, frozen=True):
    """A run that is still this process's; `cancelled`: somebody asked for its end."""

    lease: Lease
    cancelled: bool


class Tail(Ledger, Protocol):
    """The end of a run's log, where its owner writes. What is written is told to nobody before it is durable."""

    @property
    def full(self) -> bool:
        """Whether so much waits to be written that it is time to `flush`."""
        ...

    def put(self, step: InEvent | None, events: Sequence[Event]) -> None:
        """Add to the log, soon, with whatever else this process writes in the same moment."""
        ...

    async def flush(self) -> None:
        """Return once all that was put is durable. Raises `Unavailable`, `LeaseLost`."""
        ...

    async def conclude(self, events: Sequence[Event], response: StoredResponse | None) -> None:
        """Write the last events, store the response (None: nothing can be), and give up the run; all or nothing.

        Raises `Unavailable`, `LeaseLost`, and what `HistoryStore.save` raises.
        """
        ...


class Witness(Protocol):
    """Whom a `Tail` reports to."""

    def durable(self, events: Sequence[Event]) -> None:
        """These events are in the log: they may be told."""
        ...

    def broken(self, error: GatewayError) -> None:
        """Nothing more can be written: `Unavailable` or `LeaseLost`."""
        ...


class RunStore(Protocol):
    """Runs that survive their process. Failed reads and writes raise `Unavailable`; nothing is half written."""

    async def begin(self, run: NewRun, entry: Entry | None, *, waiting: bool) -> Lease:
        """Note a new run, and its log's first entry if it has one. It is this process's, or, `waiting`, to be claimed.

        Raises `InvalidRequest(code="conversation_locked")` when another run holds the conversation, or it is not the
        version any more, and `NotFound` when it is gone.
        """
        ...

    def tail(self, lease: Lease, entries: Sequence[Entry], witness: Witness) -> Tail:
        """Where to write about a run whose log has these entries."""
        ...

    async def claim(self, limit: int, *, brief: bool) -> Sequence[OpenRun]:
        """Become the owner of runs nobody makes: those that waited, and those whose owner, another one, is silent.

        `brief`: only what takes no time, runs to be ended; otherwise only what has to be made.
        """
        ...

    async def renew(self) -> Sequence[Held]:
        """Say that this process is alive; the runs that are still its own."""
        ...

    async def rest(self, seconds: float) -> None:
        """Return when there may be something to claim or to end, or after `seconds`."""
        ...

    async def log(self, lease: Lease) -> Sequence[Entry]:
        """The run's log as it is. Raises `Unavailable`, `LeaseLost`."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the run back, for anyone to claim at once."""
        ...

    async def end(self, lease: Lease) -> None:
        """Take a run away of which nothing is remembered. Does nothing when somebody else has it."""
        ...

    async def cancel(self, tenant: str, response_id: str) -> None:
        """Ask whoever makes the run to end it. Does nothing when there is no such run."""
        ...

    async def look(self, tenant: str, response_id: str) -> RunState | None:
        """The run, if the response is still being made, and will be remembered."""
        ...

    async def held(self, tenant: str, conversation_id: str) -> bool:
        """Whether a run holds the conversation."""
        ...


class EventStore(Protocol):
    """The logs of stored responses, finished or in the making, wherever they are made."""

    def follow(self, tenant: str, response_id: str, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        """Batches of the events after sequence number `after`: those there are, then those to come, until the run is
        over. A response without a log has no events. Raises `Unavailable`."""
        ...

    async def told(self, tenant: str, response_id: str) -> Sequence[Event]:
        """All events there are now. Raises `Unavailable`."""
        ...

    async def last(self, tenant: str, response_id: str) -> int:
        """The number of the last event there is now; -1: there is none. Raises `Unavailable`."""
        ...


# ── the world ─────────────────────────────────────────────────────────────────


class Clock(Protocol):
    """The time. Tests turn it by hand."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...


class Ports(Struct, frozen=True, kw_only=True):
    """Everything the heart needs from outside, built once in `boot`."""

    fleet: Fleet
    tools: ToolExecutor
    approvals: Approvals
    elicitations: Elicitations
    history: HistoryStore
    conversations: ConversationStore
    prompts: PromptStore
    runs: RunStore
    events: EventStore
    sealer: TokenSealer
    clock: Clock
    ids: IdSource
