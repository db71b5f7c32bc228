"""The vault: what servers are sent, sealed in the database, and the tokens that come of it.

A token is fetched once however many calls wait for it, is kept in memory only as long as it lasts, and is renewed when
a server refuses it. What a user granted is written back when it is renewed, since the old refresh token may be void.
"""

from __future__ import annotations

import asyncio
import secrets as randomness
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import httpx2
import msgspec
from msgspec import Struct, structs
from sqlalchemy import Row, delete, insert, select, update

from app.db.engine import Database
from app.mcp import tokens
from app.mcp.books import Registered
from app.mcp.failure import broken
from app.mcp.seals import Sealer
from app.mcp.secrets import (
    SECRET,
    ClientCredentials,
    Grant,
    Headers,
    Issued,
    OAuthClient,
    Secret,
    Token,
    TokenExchange,
    kind,
)
from app.mcp.store import answering
from app.mcp.tables import credentials
from app.mcp.vault import Credential
from app.responses.ports import Clock
from app.turn.errors import GatewayError, NotFound

# A token is not sent in its last moments: it would be void when it arrives.
_MARGIN_SECS = 30.0


class Kept(Struct, frozen=True):
    """That there is a credential. `principal` is empty for one the whole tenant shares."""

    principal: str
    kind: str
    created_at: int


class _Source:
    """The tokens of one credential: fetched when needed, once for all who wait."""

    def __init__(self, fetch: Callable[[], Awaitable[Issued]], first: Issued | None, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._until = 0.0
        if first is not None:
            self._keep(first)

    async def __call__(self, *, renew: bool = False) -> str:
        """See `Bearer`."""
        refused = self._token
        if not renew and refused is not None and self._clock.now() < self._until:
            return refused
        async with self._lock:
            # Somebody who waited before us may have renewed it.
            if self._token is None or self._token == refused:
                self._keep(await self._fetch())
            assert self._token is not None
            return self._token

    def _keep(self, issued: Issued) -> None:
        self._token = issued.access_token
        lasts = float("inf") if issued.lasts is None else max(0.0, issued.lasts - _MARGIN_SECS)
        self._until = self._clock.now() + lasts


class SealedVault:
    """The `Vault`. `network` goes only where it may; `forget` closes the sessions of what is no longer valid."""

    def __init__(self, database: Database, sealer: Sealer, clock: Clock, network: httpx2.AsyncBaseTransport) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._network = network
        self._sources: WeakValueDictionary[tuple[str, ...], _Source] = WeakValueDictionary()

    async def credential(self, server: Registered, principal: str) -> Credential:
        """See `Vault`."""
        if server.config.auth == "none":
            return Credential()
        owner = principal if server.config.auth == "per_user" else ""
        if server.config.auth == "per_user" and not principal:
            raise broken(f"MCP server '{server.label}' needs to know who asks; use an API key.", 401)
        try:
            row = await self._row(server.tenant, server.id, owner)
            secret = None if row is None else self._open(row)
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
        row = await self._row(server.tenant, server.id, "")
        secret = None if row is None else self._open(row)
        return secret if isinstance(secret, OAuthClient) else None

    async def put(self, server: Registered, principal: str, secret: Secret) -> None:
        """Keep a credential in place of what there was."""
        await self._sealer.ready(server.tenant)
        version, now = randomness.token_hex(8), int(self._clock.now())
        mine = _mine(server.tenant, server.id, principal)
        row: dict[str, Any] = {
            "version": version,
            "kind": kind(secret),
            "sealed": self._seal(server.tenant, server.id, principal, secret),
            "created_at": now,
        }
        async with answering(), self._database.writing() as connection:
            await connection.execute(delete(credentials).where(*mine))
            owner = {"tenant": server.tenant, "server": server.id, "principal": principal}
            await connection.execute(insert(credentials).values(**owner, **row))

    async def remove(self, server: Registered, principal: str) -> None:
        """Forget a credential. Raises `NotFound`."""
        mine = _mine(server.tenant, server.id, principal)
        async with answering(), self._database.writing() as connection:
            gone = await connection.execute(delete(credentials).where(*mine))
        if gone.rowcount == 0:
            raise NotFound(f"There is no credential for the MCP server '{server.label}'.")

    async def kept(self, server: Registered) -> Sequence[Kept]:
        """Which credentials there are for a server."""
        mine = (credentials.c.tenant == server.tenant, credentials.c.server == server.id)
        query = select(credentials).where(*mine).order_by(credentials.c.principal)
        async with answering(), self._database.reading() as connection:
            return [Kept(row.principal, row.kind, row.created_at) for row in await connection.execute(query)]

    def _source(self, row: Row[Any], secret: ClientCredentials | TokenExchange | Grant) -> _Source:
        key = (row.tenant, row.server, row.principal, row.version)
        source = self._sources.get(key)
        if source is None:
            first: Issued | None = None
            if isinstance(secret, Grant):
                lasts = None if secret.expires_at is None else secret.expires_at - self._clock.now()
                first = Issued(secret.access_token, lasts)

            async def fetch() -> Issued:
                return await self._fetch(row, secret)

            source = self._sources[key] = _Source(fetch, first, self._clock)
        return source

    async def _fetch(self, row: Row[Any], secret: ClientCredentials | TokenExchange | Grant) -> Issued:
        match secret:
            case ClientCredentials():
                return await tokens.client_credentials(self._network, secret)
            case TokenExchange():
                return await tokens.exchange(self._network, secret)
            case Grant():
                return await self._renewed(row)

    async def _renewed(self, row: Row[Any]) -> Issued:
        """Renew what a user granted, from what is kept now: another process may have renewed it meanwhile."""
        try:
            now = await self._row(row.tenant, row.server, row.principal)
            if now is None or now.version != row.version:
                raise broken("The credential has been replaced or revoked.", 401)
            grant = self._open(now)
            assert isinstance(grant, Grant)
            issued = await tokens.refresh(self._network, grant)
            renewed = structs.replace(
                grant,
                access_token=issued.access_token,
                refresh_token=issued.refresh_token or grant.refresh_token,
                expires_at=None if issued.lasts is None else self._clock.now() + issued.lasts,
            )
            sealed = self._seal(row.tenant, row.server, row.principal, renewed)
            mine = (*_mine(row.tenant, row.server, row.principal), credentials.c.version == row.version)
            async with answering(), self._database.writing() as connection:
                await connection.execute(update(credentials).where(*mine).values(sealed=sealed))
        except GatewayError as error:
            raise broken(error.message) from None
        return issued

    async def _row(self, tenant: str, server: str, principal: str) -> Row[Any] | None:
        await self._sealer.ready(tenant)
        query = select(credentials).where(*_mine(tenant, server, principal))
        async with answering(), self._database.reading() as connection:
            return (await connection.execute(query)).first()

    def _seal(self, tenant: str, server: str, principal: str, secret: Secret) -> bytes:
        return self._sealer.seal(tenant, f"credentials/{server}/{principal}", msgspec.json.encode(secret))

    def _open(self, row: Row[Any]) -> Secret:
        place = f"credentials/{row.server}/{row.principal}"
        return SECRET.decode(self._sealer.open(row.tenant, place, row.sealed))


def _mine(tenant: str, server: str, principal: str) -> tuple[Any, ...]:
    table = credentials.c
    return (table.tenant == tenant, table.server == server, table.principal == principal)
