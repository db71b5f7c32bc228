"""A replica that renews a grant: `python -m tests.support.renewing DATABASE_URL KEY ORIGIN`.

It prints "ready", and for each line it reads the token its vault gives in place of the one before, or what went wrong.
"""

from __future__ import annotations

import asyncio
import sys

import httpx2

from app.boot.world import SystemClock
from app.db.engine import Database, with_driver
from app.db.settings import DatabaseSettings
from app.mcp.books import Registered
from app.mcp.failure import McpFailure
from app.mcp.rules import ServerConfig
from app.mcp.sealed_vault import SealedVault
from app.mcp.sealing import KeySealer


def say(line: str) -> None:
    """Tell whoever started this."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def registered(origin: str) -> Registered:
    """The server the grant is for."""
    config = ServerConfig(url=f"{origin}/mcp", auth="per_user")
    return Registered(
        tenant="acme", label="demo", id="srv_1", version=1, config=config, enabled=True, created_at=0, updated_at=0
    )


async def main(url: str, key: str, origin: str) -> None:
    """Until there are no more lines."""
    database = Database(with_driver(url), DatabaseSettings())
    sealer = KeySealer(lambda: bytes.fromhex(key))
    async with httpx2.AsyncHTTPTransport() as network:
        vault = SealedVault(database, sealer, SystemClock(), network)
        credential = await vault.credential(registered(origin), "key_1")
        assert credential.bearer is not None
        say("ready")
        while await asyncio.to_thread(sys.stdin.readline):
            try:
                say(await credential.bearer(renew=True))
            except McpFailure as failure:
                say(f"failed: {failure.error.message}")
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
