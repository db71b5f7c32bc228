"""The MCP servers of a run, as the port the runner knows: sessions, breakers, and the books they are used by."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2

from app.mcp import telemetry
from app.mcp.behind import Asked, Backing, Behind
from app.mcp.books import MemoryBooks
from app.mcp.breaker import Breaker
from app.mcp.client import Link, connect
from app.mcp.failure import McpFailure
from app.mcp.reach import Reach, VettedTransport, networks
from app.mcp.run import RunTools
from app.mcp.servers import Target, check_labels
from app.mcp.sessions import Owner, Pool
from app.mcp.settings import McpSettings, OperatorServer
from app.responses.ports import McpServer, ToolSession
from app.turn.events import CallTool
from app.turn.items import ToolKind

_T = TypeVar("_T")


class McpExecutor:
    """`ToolExecutor` over MCP. `observe` is told the outcome ("ok" or an error's kind) and seconds of each call."""

    def __init__(
        self,
        settings: McpSettings,
        *,
        observe: Callable[[str, float], None] | None = None,
        behind: Behind | None = None,
    ) -> None:
        self._settings = settings
        self._observe = observe
        self._behind = behind or Behind(books=MemoryBooks())
        # A connection that was made for the operator's own server must not serve a tenant who names the same address.
        allowed, loopback = networks(settings.allowed_networks), bool(settings.allow_loopback)
        self._for_operator = _network(settings, Reach(allowed, _endpoints(settings.servers), loopback))
        self._for_others = _network(settings, Reach(allowed, frozenset(), loopback))
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_secs, time.monotonic)
        self._pool = Pool(settings, self._connect)

    @asynccontextmanager
    async def open(
        self, tenant: str, servers: Sequence[McpServer], conversation: str | None, principal: str = ""
    ) -> AsyncGenerator[ToolSession, None]:
        """The tools of one run. Connects to nothing yet. Raises `InvalidRequest` for servers that cannot be used."""
        yield await self.tools(Owner(tenant, principal), servers, conversation)

    async def tools(self, owner: Owner, servers: Sequence[McpServer], conversation: str | None) -> RunTools:
        """The same, for as long as it is needed: there is nothing to close."""
        check_labels(servers)
        run = RunTools(Backing(self._settings, self._behind, self.ask, self._called), owner, servers)
        await run.prepare(conversation)
        return run

    async def ask(self, asked: Asked, question: Callable[[Link], Awaitable[_T]], *, again: bool) -> _T:
        """Ask over a session; over a second one if the first is lost and the server did nothing, or `again` is safe.

        Raises `McpFailure`.
        """
        tenant, target = asked.owner.tenant, asked.target
        self._breaker.check(tenant, target.place, target.label)
        try:
            answer = await self._twice(asked, question, again=again)
        except McpFailure as failure:
            self._breaker.note(tenant, target.place, failure)
            raise
        self._breaker.note(tenant, target.place, None)
        return answer

    def forget(self, tenant: str, place: str, principal: str | None = None) -> None:
        """Close the tenant's sessions with a server once no call uses them; only `principal`'s where one is given."""
        self._pool.retire(tenant, place, principal)

    def plays(self, role: ToolKind) -> bool:
        """Whether the operator has a server that plays this hosted tool."""
        return any(server.role == role for server in self._settings.servers)

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._pool)

    async def close(self) -> None:
        """Close all sessions, within the close timeout, and all connections."""
        await self._pool.close()
        await self._for_operator.aclose()
        await self._for_others.aclose()

    async def _twice(self, asked: Asked, question: Callable[[Link], Awaitable[_T]], *, again: bool) -> _T:
        try:
            return await self._once(asked, question)
        except McpFailure as failure:
            if not (failure.refused or (again and failure.lost)):
                raise
        return await self._once(asked, question)

    async def _once(self, asked: Asked, question: Callable[[Link], Awaitable[_T]]) -> _T:
        async with self._pool.lease(asked.owner, asked.target, asked.conversation) as (session, link):
            try:
                return await question(link)
            except McpFailure as failure:
                if failure.lost:
                    session.retire()
                raise

    def _connect(self, target: Target) -> AbstractAsyncContextManager[Link]:
        return connect(target, self._settings, self._for_operator if target.origin == "operator" else self._for_others)

    def _called(self, call: CallTool, outcome: str, seconds: float) -> None:
        telemetry.called(call.server_label, call.tool, outcome, seconds)
        if self._observe is not None:
            self._observe(outcome, seconds)


def executor_network(settings: McpSettings) -> VettedTransport:
    """The way to what tenants name besides servers; it goes only where those may be. Whoever made it closes it."""
    return _network(settings, Reach(networks(settings.allowed_networks), frozenset(), bool(settings.allow_loopback)))


def _endpoints(servers: Sequence[OperatorServer]) -> frozenset[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for server in servers:
        if server.url is not None:
            parts = urlsplit(server.url)
            found.add(((parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)))
    return frozenset(found)


def _network(settings: McpSettings, reach: Reach) -> VettedTransport:
    """The connection pool that sessions with the same `reach` share; whoever made it closes it.

    Proxies and certificates named in the environment are not used. Sessions are bounded, so connections are not.
    """
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=settings.max_sessions, keepalive_expiry=30)
    return VettedTransport(reach, limits)
