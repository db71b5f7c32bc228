"""The MCP servers of a run, as the port the runner knows: sessions, breakers, and the books they are used by."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from app.mcp import telemetry
from app.mcp.behind import Asked, Backing, Behind, Holding, Permits
from app.mcp.books import MemoryBooks
from app.mcp.breaker import Breaker
from app.mcp.client import Link
from app.mcp.connecting import connect
from app.mcp.crowding import Lines
from app.mcp.failure import McpFailure
from app.mcp.networks import network_for_operator, network_for_others
from app.mcp.run import RunTools
from app.mcp.servers import Target, check_labels
from app.mcp.sessions import Owner, Pool
from app.mcp.settings import McpSettings
from app.mcp.threads import Threads
from app.responses.ports import Continuation, Ledger, McpServer, ToolSession
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
        self._for_operator = network_for_operator(settings)
        self._for_others = network_for_others(settings)
        self._breaker = Breaker(settings.breaker_failures, settings.breaker_secs)
        self._lines = Lines(settings.max_calls_per_server)
        self._threads = Threads()
        self._pool = Pool(settings, self._connect)
        self._holding = Holding(settings.max_held_per_tenant, settings.held_secs)

    @asynccontextmanager
    async def open(
        self,
        tenant: str,
        servers: Sequence[McpServer],
        continuation: Continuation | None,
        principal: str = "",
        ledger: Ledger | None = None,
    ) -> AsyncGenerator[ToolSession, None]:
        """The tools of one run. Connects to nothing yet. Raises `InvalidRequest` for servers that cannot be used."""
        owner = Owner(tenant, principal)
        thread = None if continuation is None else self._threads.of(owner, continuation)
        yield await self.tools(owner, servers, thread, ledger=ledger, user=True)

    async def tools(
        self,
        owner: Owner,
        servers: Sequence[McpServer],
        thread: str | None,
        permits: Permits | None = None,
        *,
        ledger: Ledger | None = None,
        user: bool = False,
    ) -> RunTools:
        """The same, for as long as it is needed: there is nothing to close. `permits` and `user` as in `RunTools`."""
        check_labels(servers)
        tell = self._behind.telling(ledger)
        backing = Backing(self._settings, self._behind, self.ask, self._called, tell, self._holding)
        run = RunTools(backing, owner, servers, permits, user=user)
        await run.prepare(thread)
        return run

    async def ask(self, asked: Asked, question: Callable[[Link], Awaitable[_T]], *, again: bool) -> _T:
        """Ask over a session; over a second one if the first is lost and the server did nothing, or `again` is safe.

        Raises `McpFailure`.
        """
        tenant, target = asked.owner.tenant, asked.target
        async with self._lines.line(tenant, target.place):
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
        """Give up the calls that wait for users, close all sessions, within the close timeout, and all connections."""
        await self._holding.close()
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
        async with self._pool.lease(asked.owner, asked.target, asked.thread) as (session, link):
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
