"""The pool of open sessions: who may share one, how long it lives, who closes it.

The SDK's client must be entered and left by one and the same task, and falls apart when it is not. So each session
has a task of its own that opens it, waits, and closes it; callers use the link from their tasks meanwhile. A session
serves one tenant with one set of credentials. One that keeps state on the server serves one thread of responses, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from contextvars import Context

import msgspec
from msgspec import Struct

from app.mcp import telemetry
from app.mcp.client import Link
from app.mcp.failure import CLOSED, TIMED_OUT, McpFailure, broken
from app.mcp.servers import Target
from app.mcp.settings import McpSettings

_MOST_NOTES = 10_000


class Key(Struct, frozen=True):
    """Who shares a session. `version` is that of the server's configuration and of the credential.

    `credentials` is a keyed digest of what is sent; what it was made of cannot be told from it. What a session has
    announced it can do holds for all of it, so those that can ask a user (`elicits`) are others.
    """

    tenant: str
    principal: str
    place: str
    version: str
    credentials: bytes
    thread: str | None
    elicits: bool = False


class Owner(Struct, frozen=True):
    """Whose session it is."""

    tenant: str
    principal: str = ""


class Session:
    """One open session and the task that owns it. `on_end` is called once it cannot be used any more."""

    def __init__(
        self,
        key: Key,
        target: Target,
        settings: McpSettings,
        connection: AbstractAsyncContextManager[Link],
        on_end: Callable[[Session], None],
    ) -> None:
        self.key = key
        self._label = target.label
        self._settings = settings
        self._connection = connection
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._born = self._last_used = self._loop.time()
        self._users = 0
        self._retired = False
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._link: Link | None = None
        self._failure: McpFailure | None = None
        # Not the caller's context: what it carries (request id, baggage) belongs to one request, not to the session.
        self.task = self._loop.create_task(self._live(), context=Context())

    @property
    def usable(self) -> bool:
        """Whether a new call may use it."""
        young = self._loop.time() - self._born < self._settings.session_max_age_secs
        return young and not self._retired and not (self._link is not None and self._link.gone)

    @property
    def idle(self) -> bool:
        """Whether nobody uses it now."""
        return self._users == 0

    @property
    def last_used(self) -> float:
        """When it was used last, on the event loop's clock."""
        return self._last_used

    def join(self) -> None:
        """It is used until `leave`."""
        self._users += 1

    async def link(self) -> Link:
        """The link, once it is open. Raises `McpFailure` when it could not be opened."""
        await self._ready.wait()
        if self._link is None:
            raise self._no_link()
        return self._link

    def leave(self) -> None:
        """It is not used any more by one who joined."""
        self._users -= 1
        self._last_used = self._loop.time()
        if self._retired and self.idle:
            self._stop.set()

    def retire(self) -> None:
        """Let calls in flight end, take no new ones, then close."""
        self._retired = True
        self._on_end(self)
        if self.idle:
            self._stop.set()

    def stop(self) -> None:
        """Close now, whoever uses it."""
        self._retired = True
        self._stop.set()

    def _no_link(self) -> McpFailure:
        # Each waiter gets an exception of its own: a raised one carries the traceback of whoever raised it.
        failure = self._failure or broken(f"MCP server '{self._label}' closed the connection.", CLOSED)
        return McpFailure(failure.error)

    async def _live(self) -> None:
        fault: str | None = None
        try:
            async with AsyncExitStack() as stack:
                self._link = await self._open(stack)
                telemetry.opened(self._label, self._link.protocol, self._loop.time() - self._born)
                self._ready.set()
                await self._linger()
        except McpFailure as failure:
            self._failure = failure
            telemetry.unopened(self._label, failure.error.message)
        except Exception as error:  # noqa: BLE001 - the owner's outer edge: whatever ended the session, it is over
            fault = type(error).__name__
        finally:
            self._retired = True
            self._on_end(self)
            self._ready.set()
        if self._failure is None:
            telemetry.closed(self._label, fault)

    async def _open(self, stack: AsyncExitStack) -> Link:
        seconds = self._settings.open_timeout_secs
        try:
            async with asyncio.timeout(seconds):
                return await stack.enter_async_context(self._connection)
        except TimeoutError:
            raise broken(f"MCP server '{self._label}' did not open a session in {seconds:g} s.", TIMED_OUT) from None

    async def _linger(self) -> None:
        idle_secs = self._settings.session_idle_secs
        while not self._stop.is_set():
            quiet = self._loop.time() - self._last_used
            if self.idle and (quiet >= idle_secs or not self.usable):
                self.retire()
                return
            try:
                async with asyncio.timeout(idle_secs - quiet if self.idle else idle_secs):
                    await self._stop.wait()
            except TimeoutError:
                continue


class Pool:
    """The open sessions of one process. `connect` opens a connection to a target."""

    def __init__(
        self,
        settings: McpSettings,
        connect: Callable[[Target], AbstractAsyncContextManager[Link]],
        secret: bytes | None = None,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._secret = secret or secrets.token_bytes(32)
        self._sessions: dict[Key, Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Where we found servers that keep no state: their sessions need no thread in the key.
        self._stateless: dict[Key, None] = {}
        self._closing = False

    def __len__(self) -> int:
        return len(self._sessions)

    @asynccontextmanager
    async def lease(
        self, owner: Owner, target: Target, thread: str | None
    ) -> AsyncGenerator[tuple[Session, Link], None]:
        """A session with `target`, opened if there is none. Raises `McpFailure`."""
        session = self._find(owner, target, thread)
        session.join()
        try:
            link = await session.link()
            self._note(session, link)
            yield session, link
        finally:
            session.leave()

    async def close(self) -> None:
        """Close all sessions, within `close_timeout_secs`."""
        self._closing = True
        for session in list(self._sessions.values()):
            session.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._settings.close_timeout_secs)
        late = [task for task in self._tasks if not task.done()]
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=self._settings.close_timeout_secs)

    def retire(self, tenant: str, place: str, principal: str | None = None) -> None:
        """Use no session of the tenant with this server any more; only those of `principal` where one is given."""
        for session in list(self._sessions.values()):
            key = session.key
            if (key.tenant, key.place) == (tenant, place) and principal in (None, key.principal):
                session.retire()

    def _find(self, owner: Owner, target: Target, thread: str | None) -> Session:
        tenant = owner.tenant
        whose = (tenant, owner.principal, target.place, target.version)
        endpoint = Key(*whose, self._digest(target), None, target.elicits)
        alike = target.stateless or endpoint in self._stateless
        key = endpoint if alike else msgspec.structs.replace(endpoint, thread=thread)
        session = self._sessions.get(key)
        if session is not None and session.usable:
            return session
        if session is not None:
            session.retire()
        if self._closing:
            raise broken("The gateway is shutting down.", CLOSED)
        self._make_room(tenant)
        session = self._sessions[key] = Session(key, target, self._settings, self._connect(target), self._forget)
        self._tasks.add(session.task)
        session.task.add_done_callback(self._tasks.discard)
        return session

    def _make_room(self, tenant: str) -> None:
        """Retire what was used least recently, where a cap is reached. Raises `McpFailure` when all are in use."""
        own = [session for session in self._sessions.values() if session.key.tenant == tenant]
        for sessions, most in (
            (own, self._settings.max_sessions_per_tenant),
            (list(self._sessions.values()), self._settings.max_sessions),
        ):
            if len(sessions) < most:
                continue
            resting = [session for session in sessions if session.idle]
            if not resting:
                raise broken("Too many MCP sessions are in use; try again later.", CLOSED)
            min(resting, key=lambda session: session.last_used).retire()
            return

    def _note(self, session: Session, link: Link) -> None:
        """Remember what was learnt about the server; a stateless session is there for all threads."""
        key = session.key
        endpoint = msgspec.structs.replace(key, thread=None)
        if not link.stateless:
            self._stateless.pop(endpoint, None)
            return
        if endpoint not in self._stateless and len(self._stateless) >= _MOST_NOTES:
            self._stateless.pop(next(iter(self._stateless)))
        self._stateless[endpoint] = None
        if key != endpoint and endpoint not in self._sessions and self._sessions.get(key) is session:
            del self._sessions[key]
            session.key = endpoint
            self._sessions[endpoint] = session

    def _forget(self, session: Session) -> None:
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]

    def _digest(self, target: Target) -> bytes:
        material = msgspec.json.encode((sorted(target.headers.items()), sorted(target.env.items()), target.command))
        return hashlib.blake2b(material, key=self._secret, digest_size=32).digest()
