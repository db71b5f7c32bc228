"""The client of the suite's `auth` scenarios: a user of ours signs in to the server, as in a browser, and calls tools.

The last argument is the server's URL. Exits 0 where the tools could be called.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx2

from app.boot.world import SystemClock
from app.db.engine import Database, with_driver
from app.db.migrate import upgrade
from app.db.settings import DatabaseSettings
from app.mcp.behind import Behind
from app.mcp.books import Registered
from app.mcp.enrolment import Enrolments
from app.mcp.executor import McpExecutor
from app.mcp.rules import ServerConfig
from app.mcp.sealed_vault import SealedVault
from app.mcp.sealing import KeySealer
from app.mcp.secrets import ClientCredentials, OAuthClient
from app.mcp.sessions import Owner
from app.mcp.settings import McpSettings
from app.mcp.store import SqlBooks
from app.turn.events import CallTool
from app.turn.request import NEVER_ASK, McpServer

WHO = Owner("conformance", "user")


async def browser(address: str) -> str:
    """The user agrees to everything at once; the address they are sent back to."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.get(address, follow_redirects=False)
    return answer.headers["location"]


async def call_all(executor: McpExecutor) -> str | None:
    """List the tools and call each; what went wrong."""
    server = McpServer(label="suite", require_approval=NEVER_ASK)
    async with executor.open(WHO.tenant, [server], None, WHO.principal) as tools:
        listed = await tools.list_tools("suite")
        if listed.error is not None:
            return f"listing: {listed.error}"
        for spec in listed.tools:
            result = await tools.call(CallTool("c", "suite", spec.tool or spec.name, "{}"))
            if result.error is not None:
                return f"{spec.name}: {result.error}"
    return None


async def main(url: str, folder: str) -> None:
    """Sign in where the scenario is about that, and use what comes of it."""
    scenario = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
    context: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    database = Database(with_driver(f"sqlite:///{Path(folder) / 'suite.db'}"), DatabaseSettings())
    await upgrade(database)
    books, sealer, clock = SqlBooks(database), KeySealer(lambda: b"k" * 32), SystemClock()
    machine = "client-credentials" in scenario
    config = ServerConfig(url=url, auth="shared" if machine else "per_user")
    server = Registered(
        tenant=WHO.tenant, label="suite", id="srv_1", version=1, config=config, enabled=True, created_at=0, updated_at=0
    )
    await books.add(server)
    async with httpx2.AsyncHTTPTransport() as network:
        vault = SealedVault(database, sealer, clock, network)
        executor = McpExecutor(McpSettings(allow_loopback=True), behind=Behind(books=books, vault=vault))
        try:
            if machine:
                secret = ClientCredentials(client_id=context["client_id"], client_secret=context["client_secret"])
                await vault.put(server, "", secret)
                if (failed := await call_all(executor)) is not None:
                    raise SystemExit(failed)
            else:
                if "client_id" in context:
                    given = OAuthClient(client_id=context["client_id"], client_secret=context.get("client_secret"))
                    await vault.put(server, "", given)
                enrolments = Enrolments(database, books, vault, network, "https://shepherd.example")
                # Twice where the server wants another sign-in than the first.
                for last in (False, True):
                    address = await enrolments.begin(WHO, "suite", sealer, clock)
                    await enrolments.finish(WHO, await browser(address), sealer, clock)
                    executor.forget(WHO.tenant, server.id, WHO.principal)
                    if (failed := await call_all(executor)) is None:
                        break
                    if last:
                        raise SystemExit(failed)
        finally:
            await executor.close()
            await vault.close()
            await database.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        asyncio.run(main(sys.argv[-1], made))
