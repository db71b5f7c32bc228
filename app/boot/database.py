"""The database at start: made and migrated where it is ours, checked and refused where it is the operator's."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.boot.listening import StartError
from app.db import migrate
from app.db.engine import BadDatabaseUrl, Database, database_url
from app.settings.tree import Settings


async def open_database(settings: Settings) -> Database:
    """A database whose schema is current; whoever asked closes it.

    The default one, in the data directory, is made and migrated, and so is a SQLite file with nothing in it. Any other
    must be current already. One that cannot be written is refused. Raises `StartError`.
    """
    database = Database(_url(settings), settings.db)
    _check_files(database.url)
    try:
        with explained(database.url):
            ours = settings.db.url is None or (database.is_sqlite and await migrate.is_empty(database))
            await (migrate.upgrade if ours else migrate.ensure_current)(database)
            await migrate.ensure_writable(database)
    except BaseException:
        await database.close()
        raise
    return database


async def migrate_database(settings: Settings) -> str:
    """Bring the configured database to the newest schema; where it is. Raises `StartError`."""
    database = Database(_url(settings), settings.db)
    _check_files(database.url)
    try:
        with explained(database.url):
            await migrate.upgrade(database)
    finally:
        await database.close()
    return f"{_shown(database.url)} is at {migrate.head()}."


async def check_migrations(settings: Settings) -> str:
    """Whether tables and migrations agree, and an operator's database is current. Raises `StartError`."""
    try:
        await migrate.metadata_matches_head()
    except migrate.SchemaMismatch as error:
        raise StartError(str(error)) from error
    if settings.db.url is not None:
        await (await open_database(settings)).close()
    return f"The migrations make the tables of this version ({migrate.head()})."


@contextmanager
def explained(url: URL) -> Generator[None]:
    """What a database does wrong, as a `StartError` that names it without its password."""
    try:
        yield
    except migrate.SchemaMismatch as error:
        raise StartError(f"{_shown(url)}: {error}") from error
    except (migrate.ReadOnly, SQLAlchemyError, OSError, TimeoutError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        reason = str(cause).strip() or "it does not answer"
        raise StartError(f"cannot use the database {_shown(url)}: {reason}") from error


def _check_files(url: URL) -> None:
    """Raise `StartError` for a SQLite file that cannot be written, before SQLite makes others like it beside it."""
    if url.get_backend_name() != "sqlite" or url.database is None or not Path(url.database).is_file():
        return
    for each in (Path(url.database).parent, *(Path(url.database + more) for more in ("", "-wal", "-shm"))):
        if each.exists() and not os.access(each, os.W_OK):
            raise StartError(f"cannot use the database {_shown(url)}: user {os.geteuid()} cannot write to {each}")


def _url(settings: Settings) -> URL:
    try:
        if settings.db.url is None:
            Path(settings.server.data_dir).mkdir(parents=True, exist_ok=True)
        return database_url(settings.db, settings.server.data_dir)
    except BadDatabaseUrl as error:
        raise StartError(f"db.url: {error}") from error
    except OSError as error:
        raise StartError(f"cannot make the data directory {settings.server.data_dir}: {error.strerror}") from error


def _shown(url: URL) -> str:
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)
