"""What the HTTP edge needs from the rooms below: protocols small enough for a twin, and one Struct to carry them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal, Protocol

from litestar.types import ASGIApp
from msgspec import Struct

from app.api.admin.rooms import Admin
from app.api.principal import Gatekeeper
from app.dialects.openai_responses.encode import Event
from app.dialects.openai_responses.wire import CreateResponse
from app.responses.circumstances import USUAL, Circumstances
from app.responses.conversations import Conversations
from app.responses.counting import Counting
from app.responses.including import Including
from app.responses.lanes import Bounds
from app.responses.ports import ItemPage, ModelInfo, StoredItem
from app.responses.prompts import Prompts
from app.responses.repeats import Repeats
from app.responses.stores import ResponseIndex
from app.routing.admin import FleetAdmin
from app.telemetry.metrics import Metrics
from app.turn.ids import IdSource, RandomIds


class RunView(Protocol):
    """A response in the making, as a client follows it."""

    def follow(self, after: int = -1) -> AsyncIterator[Sequence[Event]]: ...

    async def result(self) -> bytes: ...

    def items(self) -> tuple[StoredItem, ...]: ...

    def detach(self) -> None: ...

    def steer(self) -> None: ...


class ResponsesApi(Protocol):
    """The use-cases behind `/v1/responses`. Errors are `GatewayError`s."""

    async def create(
        self, tenant: str, request: CreateResponse, principal: str = "", circumstances: Circumstances = USUAL
    ) -> RunView: ...

    async def get(self, tenant: str, response_id: str) -> bytes: ...

    async def follow(self, tenant: str, response_id: str, after: int = -1) -> RunView: ...

    async def cancel(self, tenant: str, response_id: str) -> bytes: ...

    async def delete(self, tenant: str, response_id: str) -> None: ...

    async def input_items(
        self, tenant: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage: ...


class Desk(Struct, frozen=True, kw_only=True):
    """What clients find beside responses."""

    conversations: Conversations
    prompts: Prompts
    repeats: Repeats
    counting: Counting
    index: ResponseIndex
    including: Including


class Status(Struct, frozen=True):
    """How the server is."""

    draining: bool
    healthy_workers: int
    workers: int
    runs: int


class Services(Struct, frozen=True, kw_only=True):
    """Everything the edge may use. `max_body` is in bytes, `keepalive_secs` and `socket_secs` in seconds;
    `socket_bounds` are those of one WebSocket. `padded`: so are the deltas of streams whose requests do not say."""

    gate: Gatekeeper
    responses: ResponsesApi
    models: Callable[[str], Sequence[ModelInfo]]
    status: Callable[[], Status]
    metrics: Metrics
    max_body: int
    keepalive_secs: float
    padded: bool = False
    access_log: bool = False
    socket_secs: float = 3600.0
    socket_bounds: Bounds = Bounds()
    ids: IdSource = RandomIds()
    admin: Admin | None = None
    fleet: FleetAdmin | None = None
    mcp: ASGIApp | None = None
    desk: Desk | None = None
