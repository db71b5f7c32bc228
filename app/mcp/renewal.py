"""Renewing what a user granted: once, however many replicas want it at the same moment.

A refresh token may be good for one use; the second costs the user the whole grant. So who wants to renew first leases
the grant, in the database: the lease is written into the sealed row in place of exactly the bytes that were read, which
only one of many can do. The others wait, and take the token that it brings.

A lease ends by itself, since its holder may have died. What such a holder still brings, should it only have been slow,
is written down as long as nobody else leased the grant meanwhile, and thrown away after.
"""

from __future__ import annotations

import asyncio
import secrets

import httpx2
from msgspec import structs

from app.mcp import tokens
from app.mcp.failure import McpFailure, broken
from app.mcp.secrets import Grant, Issued, Lease
from app.mcp.shelf import Shelf, Shelved
from app.responses.ports import Clock

# An authorization server is given less than the lease lasts, so that a holder in good health is never overtaken. The
# rest is what replicas' clocks may differ by.
_ASK_SECS = 20.0
_LEASE_SECS = 30.0
_PATIENCE_SECS = 60.0
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5


class Renewal:
    """Renews grants that are on `shelf`."""

    def __init__(self, shelf: Shelf, network: httpx2.AsyncBaseTransport, clock: Clock) -> None:
        self._shelf = shelf
        self._network = network
        self._clock = clock

    async def __call__(self, kept: Shelved, spent: str | None) -> Issued:
        """A token in place of `spent`, which has expired or was refused: another replica's, or a new one.

        Raises `McpFailure`, also for a grant that was replaced or revoked, and `Unavailable`.
        """
        try:
            async with asyncio.timeout(_PATIENCE_SECS):
                return await self._renewed(kept, spent)
        except TimeoutError:
            raise broken("The access is being renewed elsewhere, and that takes too long.") from None

    async def _renewed(self, kept: Shelved, spent: str | None) -> Issued:
        pause = _FIRST_PAUSE
        while True:
            now, grant = await self._now(kept)
            if grant.access_token != spent and self._lasts(grant):
                lasts = None if grant.expires_at is None else grant.expires_at - self._clock.now()
                return Issued(grant.access_token, lasts)
            if grant.lease is None or grant.lease.until <= self._clock.now():
                mine = Lease(secrets.token_hex(8), self._clock.now() + _LEASE_SECS)
                leased = await self._shelf.swap(now, structs.replace(grant, lease=mine))
                if leased is not None:
                    issued = await self._asked(leased, grant, mine)
                    if issued is not None:
                        return issued
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _asked(self, leased: Shelved, grant: Grant, mine: Lease) -> Issued | None:
        """The new token, written down; None where somebody else has leased the grant meanwhile."""
        try:
            async with asyncio.timeout(_ASK_SECS):
                issued = await tokens.refresh(self._network, grant)
        except (McpFailure, TimeoutError) as error:
            await self._settle(leased, grant, mine)
            if isinstance(error, McpFailure):
                raise
            raise broken("The authorization server did not answer in time.") from None
        renewed = structs.replace(
            grant,
            access_token=issued.access_token,
            refresh_token=issued.refresh_token or grant.refresh_token,
            expires_at=None if issued.lasts is None else self._clock.now() + issued.lasts,
        )
        return issued if await self._settle(leased, renewed, mine) else None

    async def _settle(self, leased: Shelved, grant: Grant, mine: Lease) -> bool:
        """Write `grant` in place of what was leased, without the lease; whether it was still ours.

        The row may have been sealed anew meanwhile, which changes its bytes and not whose the lease is.
        """
        at = leased
        while await self._shelf.swap(at, structs.replace(grant, lease=None)) is None:
            at, there = await self._now(leased)
            if there.lease is None or there.lease.holder != mine.holder:
                return False
        return True

    async def _now(self, kept: Shelved) -> tuple[Shelved, Grant]:
        now = await self._shelf.get(kept.tenant, kept.server, kept.principal)
        if now is None or now.version != kept.version:
            raise broken("The credential has been replaced or revoked.", 401)
        grant = self._shelf.open(now)
        assert isinstance(grant, Grant)
        return now, grant

    def _lasts(self, grant: Grant) -> bool:
        return grant.expires_at is None or grant.expires_at > self._clock.now()
