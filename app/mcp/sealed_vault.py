"""The vault: what servers are sent, sealed in the database, and the tokens that come of it.

A token is fetched once however many calls wait for it, is kept in memory only as long as it lasts, and is renewed when
a server refuses it. What a user granted is renewed by one replica for all, and written back: see `renewal.py`.
"""

from __future__ import annotations

import asyncio
import secrets as randomness
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from weakref import WeakValueDictionary

import httpx2
from msgspec import structs

from app.db.engine import Database
from app.mcp import oauth, tokens
from app.mcp.books import Registered
from app.mcp.failure import broken
from app.mcp.renewal import Renewal
from app.mcp.seals import Sealer
from app.mcp.secrets import (
    ClientCredentials,
    Grant,
    Headers,
    Issued,
    OAuthClient,
    Secret,
    Token,
    TokenExchange,
    joined,
)
from app.mcp.shelf import Kept, Shelf, Shelved
from app.mcp.vault import Credential
from app.responses.ports import Clock
from app.turn.errors import GatewayError, NotFound

# A token is not sent in its last moments: it would be void when it arrives.
_MARGIN_SECS = 30.0
_LONGEST_SCOPE = 4096


class _Source:
    """The tokens of one credential: fetched when needed, once for all who wait. `fetch` is told the token before,
    `want` what a token is not good for."""

    def __init__(
        self,
        fetch: Callable[[str | None], Awaitable[Issued]],
        want: Callable[[str], Awaitable[bool]],
        first: Issued | None,
        clock: Clock,
    ) -> None:
        self._fetch = fetch
        self._want = want
        self._clock = clock
        self._fetching: asyncio.Task[str] | None = None
        self._token: str | None = None
        self._until = 0.0
        if first is not None:
            self._keep(first)

    async def __call__(self, *, renew: bool = False) -> str:
        """See `Bearer`."""
        if self._fetching is None:
            if not renew and self._token is not None and self._clock.now() < self._until:
                return self._token
            # A task of its own, in nobody's context: a caller who leaves must not take along what was just issued.
            self._fetching = asyncio.get_running_loop().create_task(self._renewed(), context=Context())
            self._fetching.add_done_callback(_looked_at)
        return await asyncio.shield(self._fetching)

    async def lacks(self, scope: str) -> bool:
        """See `Bearer`."""
        return await self._want(scope)

    async def settle(self) -> None:
        """Wait for what is being fetched now."""
        if self._fetching is not None:
            await asyncio.wait([self._fetching])

    async def _renewed(self) -> str:
        try:
            issued = await self._fetch(self._token)
        finally:
            self._fetching = None
        self._keep(issued)
        return issued.access_token

    def _keep(self, issued: Issued) -> None:
        self._token = issued.access_token
        lasts = float("inf") if issued.lasts is None else max(0.0, issued.lasts - _MARGIN_SECS)
        self._until = self._clock.now() + lasts


class SealedVault:
    """The `Vault`. `network` goes only where it may; `forget` closes the sessions of what is no longer valid."""

    def __init__(self, database: Database, sealer: Sealer, clock: Clock, network: httpx2.AsyncBaseTransport) -> None:
        self._shelf = Shelf(database, sealer)
        self._clock = clock
        self._network = network
        self._renewal = Renewal(self._shelf, network, clock)
        self._sources: WeakValueDictionary[tuple[str, ...], _Source] = WeakValueDictionary()

    async def credential(self, server: Registered, principal: str) -> Credential:
        """See `Vault`."""
        if server.config.auth == "none":
            return Credential()
        owner = principal if server.config.auth == "per_user" else ""
        if server.config.auth == "per_user" and not principal:
            raise broken(f"MCP server '{server.label}' needs to know who asks; use an API key.", 401)
        try:
            row = await self._shelf.get(server.tenant, server.id, owner)
            secret = None if row is None else self._shelf.open(row)
        except GatewayError as error:
            raise broken(f"MCP server '{server.label}': {error.message}") from None
        if row is None or secret is None:
            whose = "of yours" if owner else "of your tenant's"
            raise broken(f"MCP server '{server.label}' needs a credential {whose}, and there is none yet.", 401)
        match secret:
            case Headers():
                return Credential(row.version, {name.lower(): value for name, value in secret.headers.items()})
            case Token():
                return Credential(row.version, {"authorization": f"Bearer {secret.token}"})
            case OAuthClient():
                raise broken(f"MCP server '{server.label}' has a client to sign in by, and nobody signed in.", 401)
            case _:
                return Credential(row.version, {}, self._source(row, secret))

    async def client(self, server: Registered) -> OAuthClient | None:
        """Who the tenant is to the server's authorization server, where that is kept."""
        row = await self._shelf.get(server.tenant, server.id, "")
        secret = None if row is None else self._shelf.open(row)
        return secret if isinstance(secret, OAuthClient) else None

    async def grant(self, server: Registered, principal: str) -> Grant | None:
        """What `principal` granted by signing in."""
        row = await self._shelf.get(server.tenant, server.id, principal)
        secret = None if row is None else self._shelf.open(row)
        return secret if isinstance(secret, Grant) else None

    async def put(self, server: Registered, principal: str, secret: Secret) -> None:
        """Keep a credential in place of what there was. Raises `McpFailure` where it does not say where its tokens come
        from, and neither does the server."""
        if isinstance(secret, ClientCredentials):
            secret = await oauth.located(self._network, server.config.url, secret)
        new = Shelved(server.tenant, server.id, principal, randomness.token_hex(8), b"")
        await self._shelf.put(new, secret, int(self._clock.now()))

    async def close(self) -> None:
        """Write down what is being issued at this moment, before the database and the network are gone."""
        await asyncio.gather(*(source.settle() for source in tuple(self._sources.values())))

    async def remove(self, server: Registered, principal: str) -> None:
        """Forget a credential. Raises `NotFound`."""
        if not await self._shelf.remove(server.tenant, server.id, principal):
            raise NotFound(f"There is no credential for the MCP server '{server.label}'.")

    async def kept(self, server: Registered) -> Sequence[Kept]:
        """Which credentials there are for a server."""
        return await self._shelf.kept(server.tenant, server.id)

    def _source(self, row: Shelved, secret: ClientCredentials | TokenExchange | Grant) -> _Source:
        key = (row.tenant, row.server, row.principal, row.version)
        source = self._sources.get(key)
        if source is None:
            first: Issued | None = None
            if isinstance(secret, Grant):
                lasts = None if secret.expires_at is None else secret.expires_at - self._clock.now()
                first = Issued(secret.access_token, lasts)

            async def fetch(spent: str | None) -> Issued:
                return await self._fetched(row, secret, spent)

            async def want(scope: str) -> bool:
                return isinstance(secret, Grant) and await self._wanted(row, scope)

            source = self._sources[key] = _Source(fetch, want, first, self._clock)
        return source

    async def _wanted(self, row: Shelved, scope: str) -> bool:
        """Write down what the server needs, for the next sign-in; whether that would ask for more than the last one.

        Best effort: where somebody else changes the grant just now, the server will say it again.
        """
        try:
            now = await self._shelf.get(row.tenant, row.server, row.principal)
            grant = None if now is None or now.version != row.version else self._shelf.open(now)
            if now is None or not isinstance(grant, Grant):
                return False
            wanted = joined(grant.wanted, scope)
            if wanted is not None and len(wanted) <= _LONGEST_SCOPE and wanted != grant.wanted:
                await self._shelf.swap(now, structs.replace(grant, wanted=wanted))
        except GatewayError:
            return False
        return bool(frozenset(scope.split()) - frozenset((grant.asked or grant.scope or "").split()))

    async def _fetched(
        self, row: Shelved, secret: ClientCredentials | TokenExchange | Grant, spent: str | None
    ) -> Issued:
        match secret:
            case ClientCredentials():
                return await tokens.client_credentials(self._network, secret)
            case TokenExchange():
                return await tokens.exchange(self._network, secret)
            case Grant():
                try:
                    return await self._renewal(row, spent)
                except GatewayError as error:
                    raise broken(error.message) from None


def _looked_at(fetching: asyncio.Task[str]) -> None:
    # Everybody who waited may have left: then nobody else looks at how it ended.
    if not fetching.cancelled():
        fetching.exception()
