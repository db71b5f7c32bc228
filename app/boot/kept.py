"""Where what clients keep beside responses is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

from msgspec import Struct

from app.boot.background import in_background
from app.db.engine import Database
from app.history.conversations import SqlConversationStore
from app.history.listing import SqlResponseIndex
from app.history.opened import OpenedContexts
from app.history.prompts import SqlPromptStore
from app.history.request_keys import SqlRequestKeys
from app.history.seal import Sealer
from app.turn.errors import Unavailable
from app.turn.ids import IdSource


class Kept(Struct, frozen=True):
    """The stores."""

    conversations: SqlConversationStore
    prompts: SqlPromptStore
    keys: SqlRequestKeys
    index: SqlResponseIndex


async def keep(
    database: Database,
    ids: IdSource,
    sealer: Sealer,
    stack: AsyncExitStack,
    now: Callable[[], float],
    sweep: float,
    opened: OpenedContexts | None,
) -> Kept:
    """The stores on `database`; keys that have expired are swept every `sweep` seconds until the stack closes."""
    keys = SqlRequestKeys(database, sealer)

    async def sweeping() -> None:
        while True:
            await asyncio.sleep(sweep)
            with suppress(Unavailable):
                await keys.sweep(int(now()))

    await in_background(stack, sweeping(), "sweeper of request keys")
    return Kept(
        SqlConversationStore(database, ids, sealer, opened),
        SqlPromptStore(database, sealer),
        keys,
        SqlResponseIndex(database, sealer),
    )
