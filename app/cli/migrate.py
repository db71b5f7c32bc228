"""`shepherd migrate`."""

from __future__ import annotations

import argparse

from app.boot import database
from app.cli.running import run, settings_of


def migrate(parsed: argparse.Namespace) -> int:
    """Migrate the database, or only check that tables and migrations agree."""
    settings = settings_of(parsed)
    work = database.check_migrations if parsed.check else database.migrate_database

    async def tell() -> None:
        print(await work(settings))

    return run(tell())
