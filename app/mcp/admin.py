"""What a tenant's admin does with MCP servers. Each change is written to the audit log with who made it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct, structs

from app.mcp.books import Books, Registered, no_tool, taken
from app.mcp.client import Link
from app.mcp.definitions import Offer, Pin, canonical, difference, digest, faults
from app.mcp.executor import McpExecutor
from app.mcp.failure import McpFailure
from app.mcp.rules import Decision, Policy, ServerConfig, ServerRules, TenantPolicy
from app.mcp.run import RunTools
from app.mcp.servers import check_url
from app.mcp.sessions import Owner
from app.mcp.settings import McpSettings, OperatorServer
from app.responses.ports import Clock
from app.turn.errors import Conflict, InvalidRequest
from app.turn.ids import IdSource
from app.turn.items import ToolError
from app.turn.request import NEVER_ASK, McpServer


class Acted(Struct, frozen=True, kw_only=True):
    """Something an admin did. `detail` is JSON for people, without secrets."""

    by: Owner
    action: str
    server: str = ""
    tool: str = ""
    detail: str = ""


class ServerView(Struct, frozen=True, kw_only=True):
    """A server as an admin sees it. Those of the settings file (`source`) can be read only, and have no version."""

    label: str
    source: Literal["tenant", "file"]
    enabled: bool
    config: ServerConfig | None = None
    transport: Literal["http", "stdio"] = "http"
    url: str | None = None
    version: int = 0
    created_at: int | None = None
    updated_at: int | None = None


class Probe(Struct, frozen=True, kw_only=True):
    """What a server says when it is tried. `seconds` is how long connecting and listing took."""

    ok: bool
    protocol: str | None = None
    server: str | None = None
    tools: int | None = None
    seconds: float
    error: ToolError | None = None


class ToolView(Struct, frozen=True, kw_only=True):
    """A tool as an admin sees it: what was decided, and where its definition stands.

    `state` is `accepted`, or `quarantined`: then `faults` and `changes` say why, and `digest` accepts it.
    """

    name: str
    shown_as: str
    decision: Decision
    state: Literal["accepted", "quarantined"]
    digest: str
    definition: Any
    faults: tuple[str, ...] = ()
    changes: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])


class McpAdmin:
    """The use-cases. `who` carries the tenant and the principal; nothing here reaches beyond that tenant."""

    def __init__(
        self,
        executor: McpExecutor,
        books: Books,
        settings: McpSettings,
        clock: Clock,
        ids: IdSource,
        tell: Callable[[Acted], Awaitable[None]],
    ) -> None:
        self._executor = executor
        self._books = books
        self._settings = settings
        self._clock = clock
        self._ids = ids
        self._tell = tell

    # ── servers ───────────────────────────────────────────────────────────────

    async def servers(self, who: Owner) -> Sequence[ServerView]:
        """All servers the tenant can name: those of the settings file first."""
        own = [_view(server) for server in await self._books.servers(who.tenant)]
        return [*(_file_view(server) for server in self._settings.servers), *own]

    async def server(self, who: Owner, label: str) -> ServerView:
        """One of them. Raises `NotFound`."""
        configured = self._configured(label)
        return _file_view(configured) if configured else _view(await self._books.server(who.tenant, label))

    async def create(self, who: Owner, label: str, config: ServerConfig, *, enabled: bool = True) -> ServerView:
        """Register a server. Nothing is connected. Raises `InvalidRequest`, `Conflict`."""
        await self._check(who, label, config)
        if self._configured(label):
            raise taken(label)
        now = int(self._clock.now())
        made = Registered(
            tenant=who.tenant,
            label=label,
            id=self._ids.new("srv"),
            version=1,
            config=config,
            enabled=enabled,
            created_at=now,
            updated_at=now,
        )
        await self._books.add(made)
        await self._told(who, "mcp.server.create", label, config)
        return _view(made)

    async def update(self, who: Owner, label: str, config: ServerConfig, *, enabled: bool, expected: int) -> ServerView:
        """Replace version `expected`. Holds at once, also for runs under way. Raises `NotFound`, `Stale`, …"""
        self._not_configured(label)
        await self._check(who, label, config)
        old = await self._books.server(who.tenant, label)
        now = int(self._clock.now())
        new = structs.replace(old, config=config, enabled=enabled, version=expected + 1, updated_at=now)
        await self._books.change(new, expected=expected)
        self._executor.forget(who.tenant, old.id)
        await self._told(who, "mcp.server.update", label, {"enabled": enabled, "config": config})
        return _view(new)

    async def set_enabled(self, who: Owner, label: str, *, enabled: bool) -> ServerView:
        """Switch a server on or off, whatever its version. Raises `NotFound`."""
        self._not_configured(label)
        old = await self._books.server(who.tenant, label)
        new = structs.replace(old, enabled=enabled, version=old.version + 1, updated_at=int(self._clock.now()))
        await self._books.change(new, expected=old.version)
        self._executor.forget(who.tenant, old.id)
        await self._told(who, "mcp.server.enable" if enabled else "mcp.server.disable", label)
        return _view(new)

    async def delete(self, who: Owner, label: str) -> None:
        """Forget a server, its definitions and its credentials. Raises `NotFound`."""
        self._not_configured(label)
        gone = await self._books.remove(who.tenant, label)
        self._executor.forget(who.tenant, gone.id)
        await self._told(who, "mcp.server.delete", label)

    async def probe(self, who: Owner, label: str) -> Probe:
        """Try the server now: connect as `who` would, and list its tools. Raises `NotFound`."""
        run = await self._run(who, label)
        began = time.monotonic()

        async def question(link: Link) -> tuple[str, str, int]:
            return link.protocol, link.server, len(await link.list_tools(fresh=True))

        try:
            protocol, server, tools = await run.ask(label, question)
        except McpFailure as failure:
            return Probe(ok=False, seconds=time.monotonic() - began, error=failure.error)
        return Probe(ok=True, protocol=protocol, server=server, tools=tools, seconds=time.monotonic() - began)

    # ── tools ─────────────────────────────────────────────────────────────────

    async def tools(self, who: Owner, label: str) -> Sequence[ToolView]:
        """The server's tools as it lists them now. Raises `NotFound`, `Conflict` with why it does not list them."""
        run = await self._run(who, label)
        try:
            target, offers = await run.everything(label)
        except McpFailure as failure:
            raise Conflict(failure.error.message, code="mcp_server_unusable") from None
        pins: Mapping[str, Pin] = {}
        if target.rules.pinned:
            pins = await self._books.pins(who.tenant, target.place)
        return [_tool_view(offer, pins.get(offer.spec.name), target.rules, target.shown) for offer in offers]

    async def accept(self, who: Owner, label: str, tool: str, seen_digest: str) -> None:
        """Accept the definition with this digest. Raises `NotFound`, and `Stale` when it has changed again."""
        run = await self._run(who, label)
        place = run.place(label)
        pin = (await self._books.pins(who.tenant, place)).get(tool)
        if pin is None:
            raise no_tool(tool)
        await self._books.accept(who.tenant, place, tool, seen_digest, int(self._clock.now()))
        await self._told(who, "mcp.tool.accept", label, difference(pin), tool)

    # ── policy ────────────────────────────────────────────────────────────────

    async def policy(self, who: Owner) -> Policy:
        """What holds for all requests of the tenant."""
        return await self._books.policy(who.tenant)

    async def set_policy(self, who: Owner, body: TenantPolicy, *, expected: int) -> Policy:
        """Replace version `expected`. Raises `Stale`."""
        made = await self._books.set_policy(who.tenant, body, expected=expected, now=int(self._clock.now()))
        await self._told(who, "mcp.policy.update", "", body)
        return made

    # ── what is common ────────────────────────────────────────────────────────

    async def _run(self, who: Owner, label: str) -> RunTools:
        await self.server(who, label)
        return await self._executor.tools(who, [McpServer(label=label, require_approval=NEVER_ASK)], None)

    def _configured(self, label: str) -> OperatorServer | None:
        return next((server for server in self._settings.servers if server.label == label), None)

    def _not_configured(self, label: str) -> None:
        if self._configured(label):
            message = f"The MCP server '{label}' is set up in the server's settings and can only be changed there."
            raise Conflict(message, code="mcp_server_read_only")

    async def _check(self, who: Owner, label: str, config: ServerConfig) -> None:
        check_url(label, config.url, "config.url")
        if config.connector_id is None:
            return
        others = [server.connector_id for server in self._settings.servers]
        others += [each.config.connector_id for each in await self._books.servers(who.tenant) if each.label != label]
        if config.connector_id in others:
            raise InvalidRequest(f"There is already a connector '{config.connector_id}'.", param="connector_id")

    async def _told(self, who: Owner, action: str, server: str, detail: object = None, tool: str = "") -> None:
        said = "" if detail is None else msgspec.json.encode(detail).decode()
        await self._tell(Acted(by=who, action=action, server=server, tool=tool, detail=said))


def _view(server: Registered) -> ServerView:
    return ServerView(
        label=server.label,
        source="tenant",
        enabled=server.enabled,
        config=server.config,
        url=server.config.url,
        version=server.version,
        created_at=server.created_at,
        updated_at=server.updated_at,
    )


def _file_view(server: OperatorServer) -> ServerView:
    # Neither its command nor its headers are the tenant's business.
    return ServerView(
        label=server.label,
        source="file",
        enabled=True,
        transport="stdio" if server.command else "http",
        url=server.url,
    )


def _tool_view(offer: Offer, pin: Pin | None, rules: ServerRules, shown: Callable[[str], str]) -> ToolView:
    name = offer.spec.name
    definition = canonical(offer)
    wrong = faults(offer)
    held = pin.waits if pin is not None else bool(wrong)
    return ToolView(
        name=name,
        shown_as=shown(name),
        decision=rules.rule(name).decision or rules.default,
        state="quarantined" if held else "accepted",
        digest=digest(definition),
        definition=msgspec.json.decode(definition),
        faults=wrong,
        changes=difference(pin) if pin is not None and pin.waits and pin.accepted else {},
    )
