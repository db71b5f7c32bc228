"""Calls that wait for people, at start: for their word, or for their answers."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

from msgspec import Struct

from app.boot.background import in_background
from app.db.engine import Database
from app.mcp.approval_store import SqlApprovals
from app.mcp.books import Books
from app.mcp.elicitation_store import SqlElicitations
from app.mcp.seals import Sealer
from app.responses.ports import Clock
from app.turn.errors import Unavailable


class Waiting(Struct, frozen=True):
    """Where they are kept."""

    approvals: SqlApprovals
    elicitations: SqlElicitations


async def open_waiting(
    database: Database, books: Books, sealer: Sealer, clock: Clock, sweep: float, stack: AsyncExitStack
) -> Waiting:
    """The stores; questions that nobody can answer any more are swept every `sweep` seconds until the stack closes."""
    elicitations = SqlElicitations(database, sealer, clock)

    async def sweeping() -> None:
        while True:
            await asyncio.sleep(sweep)
            with suppress(Unavailable):
                await elicitations.sweep()

    await in_background(stack, sweeping(), "sweeper of elicitations")
    return Waiting(SqlApprovals(database, books, sealer, clock), elicitations)
