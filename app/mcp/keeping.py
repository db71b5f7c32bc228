"""What people do with credentials: put them in the vault, take them out, sign in. All of it is written to the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from app.mcp.admin import Acted
from app.mcp.books import Books
from app.mcp.enrolment import Enrolments
from app.mcp.executor import McpExecutor
from app.mcp.failure import McpFailure
from app.mcp.sealed_vault import SealedVault
from app.mcp.seals import Sealer
from app.mcp.secrets import ClientCredentials, Given, Headers, TokenExchange, kind
from app.mcp.servers import check_headers, check_url
from app.mcp.sessions import Owner
from app.mcp.shelf import Kept
from app.responses.ports import Clock
from app.turn.errors import InvalidRequest


class Standing(Struct, frozen=True, kw_only=True):
    """Whether somebody is signed in, for which scopes, and which the server has asked for since: signing in again asks
    for those, too."""

    signed_in: bool
    scope: str | None = None
    missing: str | None = None


class Keeping:
    """The use-cases. A `principal` of "" is the whole tenant."""

    def __init__(
        self,
        executor: McpExecutor,
        books: Books,
        vault: SealedVault,
        enrolments: Enrolments,
        sealer: Sealer,
        clock: Clock,
        tell: Callable[[Acted], Awaitable[None]],
    ) -> None:
        self._executor = executor
        self._books = books
        self._vault = vault
        self._enrolments = enrolments
        self._sealer = sealer
        self._clock = clock
        self._tell = tell

    @property
    def public_url(self) -> str:
        """Where browsers find this gateway; empty where nobody said."""
        return self._enrolments.public_url

    async def kept(self, who: Owner, label: str) -> Sequence[Kept]:
        """Which credentials there are for a server: whose, and of which kind. Raises `NotFound`."""
        return await self._vault.kept(await self._books.server(who.tenant, label))

    async def standing(self, who: Owner, label: str) -> Standing:
        """How the one who asks stands with a server they sign in to. Raises `NotFound`."""
        grant = await self._vault.grant(await self._books.server(who.tenant, label), who.principal)
        if grant is None:
            return Standing(signed_in=False)
        missing = frozenset((grant.wanted or "").split()) - frozenset((grant.asked or grant.scope or "").split())
        return Standing(signed_in=True, scope=grant.scope, missing=" ".join(sorted(missing)) or None)

    async def put(self, who: Owner, label: str, principal: str, secret: Given) -> None:
        """Keep a credential; sessions that were opened with another one end. Raises `NotFound`, `InvalidRequest`."""
        server = await self._books.server(who.tenant, label)
        _check(label, secret)
        try:
            await self._vault.put(server, principal, secret)
        except McpFailure as failure:
            message = f"MCP server '{label}': {failure.error.message}"
            raise InvalidRequest(message, param="token_url", code="mcp_token_url_not_found") from None
        self._executor.forget(who.tenant, server.id, principal or None)
        await self._told(who, "mcp.credential.put", label, f"{kind(secret)} of {principal or 'the tenant'}")

    async def remove(self, who: Owner, label: str, principal: str) -> None:
        """Forget a credential; sessions that were opened with it end. Raises `NotFound`."""
        server = await self._books.server(who.tenant, label)
        await self._vault.remove(server, principal)
        self._executor.forget(who.tenant, server.id, principal or None)
        await self._told(who, "mcp.credential.remove", label, principal or "the tenant")

    async def begin(self, who: Owner, label: str) -> str:
        """Begin to sign in; the address for the user's browser. Raises `NotFound`, `InvalidRequest`."""
        if not self.public_url:
            message = "Nobody can sign in: the operator has not said where browsers find this gateway (mcp.public_url)."
            raise InvalidRequest(message, code="mcp_no_sign_in")
        return await self._enrolments.begin(who, label, self._sealer, self._clock)

    async def finish(self, who: Owner, callback_url: str) -> str:
        """Finish signing in, as the one who began; the server's label. Raises `NotFound`, `InvalidRequest`."""
        server = await self._enrolments.finish(who, callback_url, self._sealer, self._clock)
        self._executor.forget(who.tenant, server.id, who.principal)
        await self._told(who, "mcp.credential.sign_in", server.label, f"oauth of {who.principal}")
        return server.label

    async def _told(self, who: Owner, action: str, label: str, detail: str) -> None:
        await self._tell(Acted(by=who, action=action, server=label, detail=detail))


def _check(label: str, secret: Given) -> None:
    if isinstance(secret, Headers):
        check_headers(label, secret.headers)
    if isinstance(secret, ClientCredentials | TokenExchange) and secret.token_url is not None:
        check_url(label, secret.token_url, "token_url")
