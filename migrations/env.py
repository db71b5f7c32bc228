"""What alembic runs: the connection it is given, against the tables of every room that stores something."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection

from app.db.engine import Database, with_driver
from app.db.metadata import metadata
from app.db.settings import DatabaseSettings
from app.history import tables as history
from app.mcp import tables as mcp
from app.tenancy import tables as tenancy

# Importing a room's tables is what registers them.
METADATA = metadata
ROOMS = (history, tenancy, mcp)


def migrate(connection: Connection) -> None:
    """Run what was asked for on `connection`; its transaction is the caller's."""
    context.configure(connection=connection, target_metadata=METADATA, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_url(url: str) -> None:
    """Run what was asked for on the database at `url`: `alembic -x url=sqlite:///x revision --autogenerate -m …`."""
    database = Database(with_driver(url), DatabaseSettings())
    try:
        async with database.writing() as connection:
            await connection.run_sync(migrate)
    finally:
        await database.close()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    asyncio.run(migrate_url(context.get_x_argument(as_dictionary=True)["url"]))
