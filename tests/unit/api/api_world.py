"""The HTTP edge over a twin of the responses service, reached in-process or over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Literal

import httpx
import msgspec
import uvicorn

from app.api.gateway import create_app
from app.api.services import RunView, Services, Status
from app.dialects.openai_responses.encode import Event
from app.dialects.openai_responses.wire import CreateResponse
from app.responses.circumstances import USUAL, Circumstances
from app.responses.log import EventLog
from app.responses.ports import ItemPage, ModelInfo, StoredItem
from app.telemetry.metrics import Metrics
from app.tenancy.principal import ANYONE, Principal
from app.turn.errors import InvalidRequest, NotFound, Unauthenticated
from tests.support.waiting import eventually


def event(number: int, kind: str) -> Event:
    """An event without much in it."""
    return Event(number, kind, msgspec.json.encode({"type": kind, "sequence_number": number}))


class TwinRun:
    """A run driven by the test."""

    def __init__(self) -> None:
        self.log = EventLog()
        self.detached = asyncio.Event()
        self.steered = 0
        self.finished: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def follow(self, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        return self.log.follow(after)

    async def result(self) -> bytes:
        return await asyncio.shield(self.finished)

    def items(self) -> tuple[StoredItem, ...]:
        return ()

    def detach(self) -> None:
        self.detached.set()

    def steer(self) -> None:
        self.steered += 1


class TwinGate:
    """Admits those whose keys the test put in; everyone while there are none."""

    def __init__(self) -> None:
        self.keys: dict[str, Principal] = {}

    async def admit(self, presented: str | None) -> Principal:
        if not self.keys:
            return ANYONE
        if presented not in self.keys:
            raise Unauthenticated("Incorrect API key provided.")
        return self.keys[presented]


class TwinResponses:
    """Answers what the test sets, and remembers what it was asked."""

    def __init__(self) -> None:
        self.run = TwinRun()
        self.asked: list[Any] = []
        self.principals: list[str] = []
        self.fault: Exception | None = None

    async def create(
        self, tenant: str, request: CreateResponse, principal: str = "", circumstances: Circumstances = USUAL
    ) -> RunView:
        self.asked.append((tenant, request))
        self.principals.append(principal)
        self._fail()
        return self.run

    async def get(self, tenant: str, response_id: str) -> bytes:
        self._fail()
        if response_id != "resp_1":
            raise NotFound(f"Response with id '{response_id}' not found.")
        return b'{"id":"resp_1"}'

    async def follow(self, tenant: str, response_id: str, after: int = -1) -> RunView:
        await self.get(tenant, response_id)
        return self.run

    async def cancel(self, tenant: str, response_id: str) -> bytes:
        self.asked.append((tenant, "cancel", response_id))
        return await self.get(tenant, response_id)

    async def delete(self, tenant: str, response_id: str) -> None:
        await self.get(tenant, response_id)

    async def input_items(
        self, tenant: str, response_id: str, *, limit: int, order: Literal["asc", "desc"], after: str | None
    ) -> ItemPage:
        self.asked.append((tenant, response_id, limit, order, after))
        if after == "nowhere":
            raise InvalidRequest("No item with id 'nowhere'.", param="after")
        return ItemPage(tuple(StoredItem(i, msgspec.Raw(b'{"id":"%s"}' % i.encode())) for i in ("b", "a")), True)

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


class World:
    """The edge, its twin, and what it reports."""

    def __init__(self, *, max_body: int = 10_000, keepalive_secs: float = 15.0, padded: bool = False) -> None:
        self.gate = TwinGate()
        self.responses = TwinResponses()
        self.metrics = Metrics()
        self.state = Status(draining=False, healthy_workers=1, workers=2, runs=0)
        self.services = Services(
            gate=self.gate,
            responses=self.responses,
            models=lambda _tenant: [ModelInfo("org/model", 5, "vllm")],
            status=lambda: self.state,
            metrics=self.metrics,
            max_body=max_body,
            keepalive_secs=keepalive_secs,
            padded=padded,
        )
        self.app = create_app(self.services)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client that calls the app directly."""
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://shepherd") as client:
            yield client

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """A real server; its port."""
        config = uvicorn.Config(self.app, host="127.0.0.1", port=0, lifespan="off", log_config=None, ws="none")
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext
        task = asyncio.create_task(server.serve())
        await eventually(lambda: server.started)
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            await task


async def within(awaitable: Awaitable[Any], seconds: float = 30.0) -> Any:
    """Await, but not for ever."""
    async with asyncio.timeout(seconds):
        return await awaitable


def error(status: int, message: str, kind: str, param: str | None = None, code: str | None = None) -> tuple[int, Any]:
    """A status and an error body."""
    return status, {"error": {"message": message, "type": kind, "param": param, "code": code}}


def seen(answer: httpx.Response) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    return answer.status_code, answer.json()
