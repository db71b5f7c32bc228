"""The books as a gateway keeps them, for `bench.mcp`."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.db.engine import Database, with_driver
from app.db.migrate import upgrade
from app.db.settings import DatabaseSettings
from app.mcp.store import SqlBooks


@asynccontextmanager
async def sqlite() -> AsyncIterator[SqlBooks]:
    """In a SQLite file at head, written as safely as a gateway does."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(with_driver(f"sqlite:///{folder}/bench.db"), DatabaseSettings())
        await upgrade(database)
        yield SqlBooks(database)
        await database.close()
