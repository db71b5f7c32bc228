"""Sign-ins that were begun: kept sealed, for ten minutes, for one person and one use."""

from __future__ import annotations

import hashlib

import httpx2
import msgspec
from sqlalchemy import delete, insert, select

from app.db.engine import Database
from app.mcp import oauth
from app.mcp.books import Books, Registered
from app.mcp.failure import McpFailure
from app.mcp.sealed_vault import SealedVault
from app.mcp.seals import Sealer
from app.mcp.secrets import Grant
from app.mcp.sessions import Owner
from app.mcp.store import answering
from app.mcp.tables import enrolments
from app.responses.ports import Clock
from app.turn.errors import InvalidRequest, NotFound

_LASTS_SECS = 600


class Enrolments:
    """Signs users in to servers. The state in the address is a secret that only its digest is kept of."""

    def __init__(
        self,
        database: Database,
        books: Books,
        vault: SealedVault,
        network: httpx2.AsyncBaseTransport,
        public_url: str,
    ) -> None:
        self._database = database
        self._books = books
        self._vault = vault
        self._network = network
        self.public_url = public_url.rstrip("/")

    async def begin(self, who: Owner, label: str, sealer: Sealer, clock: Clock) -> str:
        """The address to open in the user's browser. Raises `NotFound`, `InvalidRequest`."""
        server = await self._books.server(who.tenant, label)
        if server.config.auth != "per_user" or not who.principal:
            raise InvalidRequest(f"Nobody signs in to the MCP server '{label}'.", code="mcp_no_sign_in")
        try:
            found = await oauth.discover(self._network, server.config.url)
            given = await self._vault.client(server)
            client = await oauth.client_of(self._network, found[1], given, self.public_url)
            before = await self._vault.grant(server, who.principal)
        except McpFailure as failure:
            raise InvalidRequest(f"MCP server '{label}': {failure.error.message}", code="mcp_sign_in_failed") from None
        url, state, started = oauth.begin(server.config.url, found, client, self.public_url, before)
        await sealer.ready(who.tenant)
        digest, now = _digest(state), int(clock.now())
        row = {
            "state_digest": digest,
            "tenant": who.tenant,
            "principal": who.principal,
            "server": label,
            "sealed": sealer.seal(who.tenant, f"enrolments/{digest.hex()}", msgspec.json.encode(started)),
            "expires_at": now + _LASTS_SECS,
        }
        async with answering(), self._database.writing() as connection:
            await connection.execute(delete(enrolments).where(enrolments.c.expires_at <= now))
            await connection.execute(insert(enrolments).values(**row))
        return url

    async def finish(self, who: Owner, callback_url: str, sealer: Sealer, clock: Clock) -> Registered:
        """Redeem what the user came back with; for which server. It can be tried once.

        Raises `NotFound` for a sign-in that nobody began, that somebody else did, or that took too long, and
        `InvalidRequest` for one that failed.
        """
        try:
            callback = oauth.read_callback(callback_url)
        except McpFailure as failure:
            raise InvalidRequest(failure.error.message, param="callback_url") from None
        await sealer.ready(who.tenant)
        digest = _digest(callback.state)
        mine = (
            enrolments.c.state_digest == digest,
            enrolments.c.tenant == who.tenant,
            enrolments.c.principal == who.principal,
        )
        async with answering(), self._database.writing() as connection:
            row = (await connection.execute(select(enrolments).where(*mine))).first()
            await connection.execute(delete(enrolments).where(*mine))
        if row is None or row.expires_at <= clock.now():
            raise NotFound("There is no such sign-in; it may have taken too long.", param="callback_url")
        server = await self._books.server(who.tenant, row.server)
        plain = sealer.open(who.tenant, f"enrolments/{digest.hex()}", row.sealed)
        started = msgspec.json.decode(plain, type=oauth.Started)
        try:
            issued = await oauth.finish(self._network, started, callback)
        except McpFailure as failure:
            raise InvalidRequest(failure.error.message, code="mcp_sign_in_failed", param="callback_url") from None
        grant = Grant(
            issuer=started.issuer,
            token_url=started.token_url,
            client_id=started.client_id,
            client_secret=started.client_secret,
            resource=started.resource,
            access_token=issued.access_token,
            refresh_token=issued.refresh_token,
            expires_at=None if issued.lasts is None else clock.now() + issued.lasts,
            scope=issued.scope or started.scope,
            asked=started.scope,
            post=started.post,
        )
        await self._vault.put(server, who.principal, grant)
        return server


def _digest(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()
