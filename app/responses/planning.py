"""From a request to what a run begins with. Everything that can be wrong with a request is found here.

The order matters for one thing: what people answer is used up, so that comes last, when nothing else can be wrong any
more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, structs

from app.dialects.openai_responses import decode
from app.dialects.openai_responses.eliciting import ElicitationAnswer
from app.dialects.openai_responses.encode import ResponseEncoder
from app.dialects.openai_responses.items import ApprovalAnswer
from app.dialects.openai_responses.sealed import Seal, Sealed, carries_tokens, pack, unpack
from app.dialects.openai_responses.tools import Hosted, Tools
from app.dialects.openai_responses.wire import CreateResponse
from app.responses import expiry
from app.responses.answering import read_answers, use_up
from app.responses.plan import Plan, Recipe
from app.responses.ports import McpServer, Ports, RouteKey, StoredItem
from app.responses.settings import ResponsesSettings
from app.responses.stores import TokenSealer
from app.turn.errors import Conflict, InvalidRequest, NotFound
from app.turn.events import AnsweredCall, ApprovedCall, Role, Start
from app.turn.ids import IdSource, whole_of
from app.turn.items import Item, ToolListing
from app.turn.request import NEVER_ASK

# What the label of a server that plays a hosted tool begins with. No client can use such a label itself.
ROLE = "role:"


class Whose(Struct, frozen=True):
    """Who asks: a tenant, and who of the tenant's."""

    tenant: str
    principal: str = ""


class Asked(Struct, frozen=True):
    """A request with what it builds on."""

    tenant: str
    principal: str
    request: CreateResponse
    context: tuple[StoredItem, ...]
    own: tuple[StoredItem, ...]

    @property
    def everything(self) -> tuple[StoredItem, ...]:
        """All items, oldest first."""
        return (*self.context, *self.own)


class Words(Struct, frozen=True):
    """What people say with a request about calls that wait for it."""

    approvals: tuple[ApprovalAnswer, ...]
    answers: tuple[ElicitationAnswer, ...]

    @property
    def resumed(self) -> frozenset[str]:
        """The ids of what is to be made or gone on with."""
        approved = (answer.approval_id for answer in self.approvals if answer.approve)
        return frozenset((*approved, *(whole_of(answer.question_id) for answer in self.answers)))

    def __bool__(self) -> bool:
        return bool(self.approvals or self.answers)


class First(Struct, frozen=True):
    """What a response begins with, before the model is asked."""

    approved: tuple[ApprovedCall, ...] = ()
    answered: tuple[AnsweredCall, ...] = ()

    @property
    def ids(self) -> frozenset[str]:
        """The ids of what is made or gone on with."""
        answered = (call.reply.elicitation_id for call in self.answered)
        return frozenset((*(call.approval_id for call in self.approved), *answered))


NOTHING = First()


class Planner:
    """Makes plans, from what the rooms know."""

    def __init__(self, ports: Ports, settings: ResponsesSettings) -> None:
        self._ports = ports
        self._settings = settings

    async def plan(self, whose: Whose, request: CreateResponse, context: tuple[StoredItem, ...], ids: IdSource) -> Plan:
        """The plan for `request`, which builds on `context`. `ids` name its items.

        Raises `InvalidRequest` for what is wrong with it, `NotFound` for an item it refers to that is nowhere, and
        `Unavailable`. Unless it raises, the approvals and answers that the request gives are used up.
        """
        expiry.check(request, whose.tenant, self._settings)
        given, asked = await self._asked(whose, request, context, ids)
        words = _words(given, request)
        draft = self._draft(asked, words.resumed, NOTHING)
        if not words:
            return draft
        self._check_servers(asked, words, draft)
        kept = self._ports.elicitations
        read = await read_answers(kept, asked.tenant, asked.principal, words.answers)
        for each in read:
            _ensure_server(each.elicitation.server_label, draft)
        approved = [call for answer in words.approvals if (call := await self._used_up(asked, answer)) is not None]
        for call in approved:
            _ensure_server(call.server_label, draft)
        answered = [await use_up(kept, asked.tenant, asked.principal, each) for each in read]
        first = First(tuple(approved), tuple(answered))
        return self._draft(asked, first.ids, first)

    async def draft(
        self, whose: Whose, request: CreateResponse, context: tuple[StoredItem, ...], ids: IdSource
    ) -> Plan:
        """The plan for a request that nothing is to be made of: what people answer is not looked at, let alone used
        up."""
        given, asked = await self._asked(whose, request, context, ids)
        return self._draft(asked, _words(given, request).resumed, NOTHING)

    async def again(self, recipe: Recipe, tenant: str, context: tuple[StoredItem, ...], ids: IdSource) -> Plan:
        """The plan of a run that begins again: what it was approved to do, it was approved to do then."""
        whose = Whose(tenant, recipe.principal)
        _, asked = await self._asked(whose, recipe.read_request(), context, ids)
        first = First(recipe.approved, recipe.answered)
        return self._draft(asked, first.ids, first)

    def encoder(
        self,
        tenant: str,
        response_id: str,
        request: CreateResponse,
        ids: IdSource,
        *,
        profile: str,
        created_at: int | None = None,
    ) -> ResponseEncoder:
        """What tells the tenant's client of the response, which was created then, or is now."""
        return ResponseEncoder(
            response_id=response_id,
            created_at=int(self._ports.clock.now()) if created_at is None else created_at,
            request=request,
            ids=ids,
            profile=profile,
            seal=sealing(self._ports.sealer, tenant),
        )

    async def _asked(
        self, whose: Whose, request: CreateResponse, context: tuple[StoredItem, ...], ids: IdSource
    ) -> tuple[tuple[StoredItem, ...], Asked]:
        """The request's items as it gives them, and the request with what it builds on and refers to."""
        if carries_tokens(request, context):
            await self._ports.sealer.ready(whose.tenant)
        given = decode.input_items(request, ids, lambda token: self._unsealed(whose.tenant, token))
        own = await self._resolved(whose.tenant, given, context)
        return given, Asked(whose.tenant, whose.principal, request, context, own)

    def _draft(self, asked: Asked, resumed: frozenset[str], first: First) -> Plan:
        request = asked.request

        def unseal(token: str) -> Sealed | None:
            return self._unsealed(asked.tenant, token)

        items = decode.to_items(asked.everything, unseal=unseal, resumed=resumed)
        own = items if not asked.context else decode.to_items(asked.own, unseal=unseal, resumed=resumed)
        decode.check_pairing(items, own)
        given = decode.read_tools(request.tools)
        settling = decode.settling(asked.everything)
        later, seen = decode.later_tools(settling)
        tools = given.and_then(later)
        _check_deferred(tools)
        turn, allowed = decode.turn_request(request, items, tools, decode.configuration(settling))
        played = self._played(tools.hosted)
        limit = self._settings.max_tool_calls
        hidden = tuple(spec for spec in later.specs if spec.deferred)
        start = Start(
            request=structs.replace(turn, tools=given.and_then(Tools(specs=hidden)).specs),
            servers=tuple(server.label for server in (*tools.servers, *played)),
            known=tuple(listing for server in tools.servers if (listing := known(items, server)) is not None),
            max_tool_calls=min(request.max_tool_calls or limit, limit),
            added=seen,
            deferred=tuple(server.label for server in tools.servers if server.defer_loading),
            about=tools.about,
            roles=tuple(Role(server.role, server.label) for server in played if server.role is not None),
            approved=first.approved,
            answered=first.answered,
            allowed=allowed,
            window=decode.window(request),
        )
        route = RouteKey(
            tenant=asked.tenant,
            model=request.model,
            conversation=request.conversation_id or request.previous_response_id,
            affinity=request.prompt_cache_key,
            whole=not (request.stream or request.background),
        )
        return Plan(asked.principal, request, asked.context, asked.own, (*tools.servers, *played), start, route)

    def _unsealed(self, tenant: str, token: str) -> Sealed | None:
        return unpack(self._ports.sealer.open(tenant, token))

    async def _resolved(
        self, tenant: str, given: tuple[StoredItem, ...], context: Sequence[StoredItem]
    ) -> tuple[StoredItem, ...]:
        """The request's items with those it refers to by their ids."""
        there = {item.id for item in context}
        wanted = tuple(each for each in decode.references(given) if each not in there)
        found: Mapping[str, StoredItem] = await self._ports.history.find_items(tenant, wanted) if wanted else {}
        return decode.resolve(given, found, there)

    def _played(self, hosted: Sequence[Hosted]) -> tuple[McpServer, ...]:
        servers: list[McpServer] = []
        for each in hosted:
            if self._ports.tools.plays(each.kind):
                label, rule = f"{ROLE}{each.kind}", NEVER_ASK
                servers.append(McpServer(label=label, role=each.kind, require_approval=rule, options=each.options))
            elif self._settings.hosted_tools == "refuse":
                message = f"'{each.kind}' is not available: no MCP server is configured to play it."
                raise InvalidRequest(message, param=each.path, code="unsupported_parameter")
        return tuple(servers)

    # ── what people answer ────────────────────────────────────────────────────

    def _check_servers(self, asked: Asked, words: Words, draft: Plan) -> None:
        """The servers of calls to be made have to be among the tools: credentials come with each request."""
        labels = {**decode.approval_labels(asked.everything), **decode.elicitation_labels(asked.everything)}
        for each in words.resumed:
            if each in labels:
                _ensure_server(labels[each], draft)

    async def _used_up(self, asked: Asked, answer: ApprovalAnswer) -> ApprovedCall | None:
        """The call that is approved; None when it is declined."""
        try:
            approval = await self._ports.approvals.consume(
                asked.tenant, answer.approval_id, asked.principal, approve=answer.approve
            )
        except (NotFound, Conflict) as error:
            param = f"{answer.path}.approval_request_id"
            code = error.code or "approval_not_found"
            raise InvalidRequest(error.message, param=param, code=code) from error
        if not approval.approved:
            return None
        return ApprovedCall(approval.id, approval.server_label, approval.tool, approval.arguments, approval.terms)


def _words(given: Sequence[StoredItem], request: CreateResponse) -> Words:
    return Words(decode.approval_answers(given, request), decode.elicitation_answers(given, request))


def sealing(sealer: TokenSealer, tenant: str) -> Seal:
    """What closes content for the tenant's clients to carry."""

    def seal(content: Sealed) -> str:
        return sealer.seal(tenant, pack(content))

    return seal


def _ensure_server(label: str, draft: Plan) -> None:
    if all(server.label != label for server in draft.servers):
        message = f"The call that was waiting needs the MCP server '{label}' among the tools of this request."
        raise InvalidRequest(message, param="tools", code="missing_required_parameter")


def _check_deferred(tools: Tools) -> None:
    if tools.deferred_at is not None and not tools.searches:
        message = "Deferred tools are found with a tool of type 'tool_search', and there is none."
        raise InvalidRequest(message, param=tools.deferred_at, code="invalid_value")


def known(context: Sequence[Item], server: McpServer) -> ToolListing | None:
    """The listing of `server` that the context already holds, if it answers what this request asks for.

    A listing shows what was allowed when it was made; asked for a tool it does not show, the server is listed again.
    """
    for item in reversed(context):
        if isinstance(item, ToolListing) and item.server_label == server.label and item.error is None:
            if server.allowed is None:
                return item
            tools = tuple(tool for tool in item.tools if (tool.tool or tool.name) in server.allowed)
            return structs.replace(item, tools=tools) if len(tools) == len(set(server.allowed)) else None
    return None
