"""The tools of one run: which there are, whether they may be called, and calling them.

Everything is looked at again at each call: a model can name tools it was never shown, an admin can disable a server
in the middle of a run, and a server can change a tool after it was approved.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs

from app.mcp.approval import decide, only_reads, strictest
from app.mcp.audit import Called, digest
from app.mcp.behind import Asked, Backing, Permits
from app.mcp.client import IDEMPOTENCY_KEY, OPTIONS_KEY, Answer, Limits, Link, Progress
from app.mcp.definitions import Offer, Pin, compare, faults, terms_digest
from app.mcp.failure import INVALID_PARAMS, McpFailure, broken, clip
from app.mcp.rules import Decision, Policy, ToolRule
from app.mcp.servers import Registered, Target, resolve
from app.mcp.sessions import Owner
from app.mcp.suspended import Given, Needed, Place, Talk, make_or_go_on
from app.responses.ports import Asking, McpServer
from app.turn.errors import GatewayError, NotFound
from app.turn.events import CallTool, ToolsListed
from app.turn.items import Terms, ToolError, ToolListing, ToolResult, ToolSpec

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_ERROR_TEXT = 2000


class _Attempt(Struct):
    """What is known of a call so far."""

    tool: str = ""
    decision: str = "deny"
    approval_id: str = ""


class RunTools:
    """`ToolSession` of one run. `permits` gives the word that calls need and do not carry; `user`: there is one whom
    tools may ask."""

    def __init__(
        self,
        backing: Backing,
        owner: Owner,
        servers: Sequence[McpServer],
        permits: Permits | None = None,
        *,
        user: bool = False,
    ) -> None:
        self._backing = backing
        self._permits = permits
        self._user = user
        self._books = backing.behind.books
        self._owner = owner
        self._servers = {server.label: server for server in servers}
        self._thread: str | None = None
        self._policy = Policy()
        self._targets: dict[str, Target] = {}
        self._offers: dict[str, Mapping[str, Offer]] = {}
        self._pins: dict[str, Mapping[str, Pin]] = {}
        self._private = False

    async def prepare(self, thread: str | None) -> None:
        """Read what is known. Raises `InvalidRequest`, `Unavailable`."""
        self._thread = thread
        if not self._servers:
            return
        self._policy, registered = await self._books.known(self._owner.tenant)
        for label, server in self._servers.items():
            target = self._targets[label] = self._resolve(server, registered)
            if target.rules.pinned:
                self._pins[label] = await self._books.pins(self._owner.tenant, target.place)
        self._private = any(rule.private for target in self._targets.values() for rule in target.rules.tools.values())

    async def list_tools(self, server_label: str) -> ToolsListed:
        """The tools this request may use, in the server's order, or why there are none."""
        try:
            target = await self._target(server_label)
            offers = await self._listed(target, fresh=False)
        except McpFailure as failure:
            return ToolsListed(server_label, error=failure.error)
        specs = (self._spec(target, offer.spec, claims=offer.claims_to_read) for offer in offers.values())
        return ToolsListed(server_label, tuple(spec for spec in specs if spec is not None))

    def recall(self, listing: ToolListing) -> ToolListing:
        """The listing as this request may use it now. Only a recorded definition's claims are believed."""
        target = self._targets.get(listing.server_label)
        if target is None:
            return structs.replace(listing, tools=())
        pins = self._pins.get(target.label, {})
        tools: list[ToolSpec] = []
        for spec in listing.tools:
            own = target.own(spec.tool or spec.name)
            pin = pins.get(own)
            if not own or (pin is not None and pin.waits):
                continue
            claims = pin is not None and pin.claims_to_read
            recalled = self._spec(target, structs.replace(spec, name=own, tool=own), claims=claims)
            tools += [] if recalled is None else [recalled]
        return structs.replace(listing, tools=tuple(tools))

    def place(self, label: str) -> str:
        """What tells the server `label` from all others."""
        return self._targets[label].place

    async def ask(self, label: str, question: Callable[[Link], Awaitable[_T]]) -> _T:
        """Ask the server something that may be asked twice. Raises `McpFailure`."""
        return await self._backing.ask(self._asked(await self._target(label)), question, again=True)

    async def everything(self, label: str) -> tuple[Target, Sequence[Offer]]:
        """All tools the server lists now, for an admin's eyes: also those that are not offered. Raises `McpFailure`."""
        target = await self._target(label)

        async def question(link: Link) -> tuple[Offer, ...]:
            return await link.list_tools(fresh=True)

        offered = await self._backing.ask(self._asked(target), question, again=True)
        if target.rules.pinned:
            await self._pinned(target, offered)
        return target, offered

    async def call(self, call: CallTool) -> ToolResult | Asking:
        """Execute the call. What goes wrong is in the result, also as text for the model."""
        try:
            answer = await self._told(call, None)
        except McpFailure as failure:
            return ToolResult(call.call_id, failure.error.message, failure.error)
        if isinstance(answer, Asking):
            return answer
        if answer.is_error:
            error = ToolError("mcp_tool_execution_error", clip(answer.text, _ERROR_TEXT))
            return ToolResult(call.call_id, answer.text, error)
        draws = self._servers[call.server_label].role == "image_generation"
        return ToolResult(call.call_id, answer.text, picture=answer.picture if draws else None)

    async def may_repeat(self, call: CallTool) -> bool:
        """By the operator's or the admin's word; a server's own is not enough."""
        target = self._targets.get(call.server_label)
        if target is None:
            return False
        own = target.own(call.tool)
        return own in target.repeatable or _may_repeat(target.rules.rule(own))

    async def answer(self, call: CallTool, on_progress: Callable[[Progress], None] | None = None) -> Answer:
        """Execute the call where there is no user to ask, and tell of it. Raises `McpFailure`."""
        answer = await self._told(call, on_progress)
        assert isinstance(answer, Answer)
        return answer

    async def _told(self, call: CallTool, on_progress: Callable[[Progress], None] | None) -> Answer | Asking:
        """Execute the call, and tell of it. Raises `McpFailure`."""
        began = time.monotonic()
        outcome = "cancelled"
        attempt = _Attempt()
        try:
            answer = await self._execute(call, attempt, on_progress)
            if isinstance(answer, Asking):
                outcome = "input_required"
            else:
                outcome = "mcp_tool_execution_error" if answer.is_error else "ok"
        except McpFailure as failure:
            outcome = failure.error.kind
            raise
        finally:
            seconds = time.monotonic() - began
            self._backing.observe(call, outcome, seconds)
            await self._tell(call, attempt, outcome, seconds)
        return answer

    # ── who, where ────────────────────────────────────────────────────────────

    def _resolve(self, server: McpServer, registered: Sequence[Registered]) -> Target:
        target = resolve(server, self._backing.settings.servers, registered, self._policy.body)
        # What plays a hosted tool is not the user's to talk to.
        elicits = self._user and target.rules.elicitation and server.role is None
        return structs.replace(target, elicits=elicits)

    async def _target(self, label: str) -> Target:
        """The server as it is now, with what is sent to it. Raises `McpFailure`."""
        target = self._targets.get(label)
        if target is None:
            raise broken(f"This request has no MCP server '{label}'.", INVALID_PARAMS)
        if target.origin != "tenant":
            return target
        try:
            kept = await self._books.server(self._owner.tenant, target.registered)
        except NotFound:
            raise broken(f"MCP server '{label}' is no longer there.") from None
        except GatewayError as error:
            raise broken(f"MCP server '{label}' could not be looked up: {error.message}") from None
        if kept.id != target.place or not kept.enabled:
            raise broken(f"MCP server '{label}' is disabled.")
        fresh = self._resolve(self._servers[label], [kept])
        credential = await self._backing.behind.vault.credential(kept, self._owner.principal)
        return structs.replace(
            fresh,
            headers={**fresh.headers, **credential.headers},
            version=f"{fresh.version}/{credential.version}",
            bearer=credential.bearer,
        )

    # ── what there is ─────────────────────────────────────────────────────────

    async def _listed(self, target: Target, *, fresh: bool) -> Mapping[str, Offer]:
        async def question(link: Link) -> tuple[Offer, ...]:
            return await link.list_tools(fresh=fresh)

        offered = await self._backing.ask(self._asked(target), question, again=True)
        usable = await self._pinned(target, offered) if target.rules.pinned else _sound(offered)
        self._offers[target.label] = found = {offer.spec.name: offer for offer in usable}
        if len(found) < len(offered):
            extra = {"server": target.label, "tools": len(offered) - len(found)}
            _log.warning("MCP tools are not offered: their definitions are faulty or have changed", extra=extra)
        return found

    async def _pinned(self, target: Target, offered: Sequence[Offer]) -> list[Offer]:
        """The offers whose definitions may be used; what was seen for the first time, or anew, is recorded."""
        tenant = self._owner.tenant
        try:
            known = await self._books.pins(tenant, target.place)
            # The first listing is what the admin registered; what comes later is new.
            new = "accept" if not known else self._policy.body.new_tools
            now = int(self._backing.behind.wall())
            pins = {offer.spec.name: compare(known.get(offer.spec.name), offer, new=new, now=now) for offer in offered}
            if changed := [pin for name, pin in pins.items() if pin != known.get(name)]:
                await self._books.record(tenant, target.place, changed)
        except GatewayError as error:
            raise broken(f"MCP server '{target.label}': {error.message}") from None
        self._pins[target.label] = pins
        return [offer for offer in offered if not pins[offer.spec.name].waits]

    def _spec(self, target: Target, spec: ToolSpec, *, claims: bool) -> ToolSpec | None:
        """`spec`, by the server's own name, as requests see it; None for what this one may not use."""
        own = spec.tool or spec.name
        if not target.permits(own) or not self._within(target, own, claims=claims):
            return None
        decision = self._decision(target, own, claims=claims)
        if decision == "deny":
            return None
        shown = target.shown(own)
        seen = structs.replace(spec, name=shown, tool=shown, server_label=target.label)
        approval = "ask" if decision == "ask" else "never"
        return structs.replace(seen, approval=approval, terms=self._terms(target, seen))

    def _within(self, target: Target, own: str, *, claims: bool) -> bool:
        """Whether a request that only wants tools that read may have this one. Here the server's claim is enough: it
        makes nothing milder."""
        return not target.read_only or claims or only_reads(own, target.rules, claims=claims)

    def _terms(self, target: Target, seen: ToolSpec) -> Terms:
        return Terms(target.place, terms_digest(seen), f"{self._policy.version}.{target.version.partition('/')[0]}")

    def _decision(self, target: Target, own: str, *, claims: bool) -> Decision:
        decision = decide(own, target.rules, self._policy.body, target.approval, claims=claims)
        leaks = self._private and target.rules.rule(own).open_world
        return strictest(decision, "ask" if leaks else "allow")

    # ── calling ───────────────────────────────────────────────────────────────

    async def _execute(
        self, call: CallTool, attempt: _Attempt, on_progress: Callable[[Progress], None] | None
    ) -> Answer | Asking:
        target = await self._target(call.server_label)
        attempt.tool = own = target.own(call.tool)
        await self._check(target, own, call, attempt)
        rule = target.rules.rule(own)
        defaults = {name: msgspec.json.decode(value) for name, value in rule.defaults.items()}
        set_by_client, beside = await self._options(target, own)
        arguments = {**defaults, **_arguments(call.arguments), **set_by_client}
        limits = self._limits(rule, on_progress)
        # The key names the tenant and the response, which are not the server's business.
        meta: dict[str, Any] = {} if call.key is None else {IDEMPOTENCY_KEY: digest(call.key)}
        if beside:
            meta[OPTIONS_KEY] = beside

        async def made(given: Given | None, talk: Talk | None) -> Answer | Needed:
            async def question(link: Link) -> Answer | Needed:
                return await link.call(own, arguments, limits, meta=meta, given=given, talk=talk)

            again = own in target.repeatable or _may_repeat(rule)
            return await self._backing.ask(self._asked(target), question, again=again)

        whose = (self._owner.tenant, self._owner.principal)
        where = Place(target.label, target.place, own, whose, target.elicits)
        return await make_or_go_on(where, self._backing.holding, call.reply, made)

    async def _options(self, target: Target, own: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the client has set about the hosted tool that the server plays, as arguments and beside them. Raises
        `McpFailure`."""
        given = self._servers[target.label].options
        if not given:
            return {}, {}
        offers = self._offers.get(target.label)
        offer = (await self._listed(target, fresh=False) if offers is None else offers).get(own)
        if offer is None:
            raise broken(f"MCP server '{target.label}' does not offer the tool.", INVALID_PARAMS)
        return offer.takes(given)

    def _asked(self, target: Target) -> Asked:
        return Asked(self._owner, target, self._thread)

    def _limits(self, rule: ToolRule, on_progress: Callable[[Progress], None] | None) -> Limits:
        settings = self._backing.settings
        return Limits(
            silent_secs=rule.timeout_secs or settings.call_timeout_secs,
            most_secs=rule.timeout_secs or settings.call_max_secs,
            result_bytes=min(rule.max_result_bytes or settings.max_result_bytes, settings.max_body_bytes),
            on_progress=on_progress,
        )

    async def _check(self, target: Target, own: str, call: CallTool, attempt: _Attempt) -> None:
        """Raise `McpFailure` for a call that may not be made."""
        named = f"Tool '{clip(call.tool, 128)}' of MCP server '{target.label}'"
        forbidden = broken(f"{named} is not allowed.", INVALID_PARAMS)
        if not own or not target.permits(own):
            raise forbidden
        rules = target.rules
        # An approval is held against what the tool is now, not against what it was when it was listed.
        held = call.approved is not None or (
            self._permits is not None and self._decision(target, own, claims=False) == "ask"
        )
        needed = rules.pinned or rules.trusted or target.read_only or held
        offers = self._offers.get(target.label)
        if needed and (offers is None or held):
            offers = await self._listed(target, fresh=held)
        offer = (offers or {}).get(own)
        if needed and offer is None:
            raise broken(f"{named} is not offered.", INVALID_PARAMS)
        claims = offer is not None and offer.claims_to_read
        if not self._within(target, own, claims=claims):
            raise forbidden
        attempt.decision = decision = self._decision(target, own, claims=claims)
        if decision == "deny":
            raise forbidden
        if decision == "ask":
            if offer is None or (call.approved is None and self._permits is None):
                raise broken(f"{named} needs approval.", INVALID_PARAMS)
            terms = self._terms(target, structs.replace(offer.spec, name=call.tool, tool=call.tool))
            approved = call.approved
            if approved is None and self._permits is not None:
                approved = await self._permits.permit(self._owner, call, terms)
            assert approved is not None
            attempt.approval_id = approved.approval_id
            if approved.terms != terms:
                message = f"The approval is void: {named} or the rules have changed since it was asked for."
                raise broken(message, INVALID_PARAMS)

    async def _tell(self, call: CallTool, attempt: _Attempt, outcome: str, seconds: float) -> None:
        called = Called(
            tenant=self._owner.tenant,
            principal=self._owner.principal,
            server=call.server_label,
            tool=attempt.tool or clip(call.tool, 128),
            decision=attempt.decision,
            outcome=outcome,
            seconds=seconds,
            arguments_digest=digest(call.arguments),
            arguments=call.arguments if self._policy.body.keep_arguments else None,
            approval_id=attempt.approval_id,
        )
        try:
            await self._backing.tell(called)
        except GatewayError as error:
            # The call was made; that nobody wrote it down does not unmake it.
            _log.critical("a tool call is missing from the audit log: %s", error.message, extra={"tool": called.tool})


def _sound(offered: Sequence[Offer]) -> list[Offer]:
    return [offer for offer in offered if not faults(offer)]


def _arguments(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise broken("The arguments of the tool call are not a JSON object.", INVALID_PARAMS) from None


def _may_repeat(rule: ToolRule) -> bool:
    return rule.idempotent or rule.read_only is True
