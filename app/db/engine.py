"""One database. `look` and `transact` do all that a plain function wants of it in one go: they are for what is done all
the time. `reading` and `writing` are for the rest: there, statements are awaited one by one.

SQLite runs in WAL mode with the driver's own transaction handling switched off: a transaction begins with BEGIN
IMMEDIATE, because one that begins as a reader and turns into a writer fails at once instead of waiting its turn.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Engine, ExceptionContext, NullPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.util import await_

from app.db.faults import is_to_be_replaced
from app.db.one_hop import OneHopConnection
from app.db.settings import DatabaseSettings
from app.db.stalled import APPLICATION, undo_stalled
from app.db.threads import Threads, Work

_T = TypeVar("_T")
FILE_NAME: Final = "shepherd.db"
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_PAUSE: Final = 0.02
_READERS: Final = 4
# A connection that was used within this time is taken to be there still.
_FRESH_SECS: Final = 5.0
_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}


class BadDatabaseUrl(Exception):
    """The database URL cannot be used; the message says why and never shows a password."""


def database_url(settings: DatabaseSettings, data_dir: str | Path) -> URL:
    """The database meant by the settings: theirs, or a SQLite file in `data_dir`. Raises `BadDatabaseUrl`."""
    if settings.url is None:
        return URL.create(_DRIVERS["sqlite"], database=str(Path(data_dir).resolve() / FILE_NAME))
    return with_driver(settings.url)


def with_driver(url: str) -> URL:
    """`url` with its async driver: `sqlite:///x`, `postgresql://…` as anybody would write them.

    libpq's `sslmode` becomes the `ssl` that asyncpg knows. Raises `BadDatabaseUrl`.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise BadDatabaseUrl("not a database URL; expected sqlite:///path or postgresql://user@host/name") from error
    name = parsed.drivername.partition("+")[0]
    driver = _DRIVERS.get(name)
    if driver is None or parsed.drivername not in (name, driver):
        raise BadDatabaseUrl(f"'{parsed.drivername}' is not supported; use sqlite:///path or postgresql://…")
    if name == "sqlite":
        _check_sqlite(parsed)
    elif "sslmode" in parsed.query:
        parsed = parsed.difference_update_query(["sslmode"]).update_query_dict({"ssl": parsed.query["sslmode"]})
    return parsed.set(drivername=driver)


def _check_sqlite(url: URL) -> None:
    if not url.database or ":memory:" in url.database or url.query.get("mode") == "memory":
        raise BadDatabaseUrl("an in-memory SQLite database forgets everything; name a file: sqlite:///path")


class Database:
    """An engine with its pool, and the ways to use it. `close` it when done.

    Exceptions are the driver's, SQLAlchemy's, `OSError` or `TimeoutError`; whoever stores something maps them.
    """

    def __init__(self, url: URL, settings: DatabaseSettings) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.engine = _sqlite(url, settings) if self.is_sqlite else _postgresql(url, settings)
        self._reader = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._timeout = settings.op_timeout_secs
        self._stalled_secs = settings.postgresql_idle_transaction_secs
        # SQLite has one writer at a time and lets the others poll; in one process they can queue instead.
        self._turn = asyncio.Lock()
        # SQLite's work is done in threads; they are started when there is some.
        self.direct = _direct(url, settings) if self.is_sqlite else self.engine.sync_engine
        self._looks = Threads(self.direct, most=min(_READERS, settings.pool_size), writing=False)
        self._transacts = Threads(self.direct, most=1, writing=True)

    async def look(self, work: Work[_T]) -> _T:
        """What `work` makes of a connection without a transaction: each statement sees what is committed by then."""
        if self.is_sqlite:
            return await self._looks.visit(work, self._timeout)
        async with self.reading() as connection:
            return await connection.run_sync(work)

    async def transact(self, work: Work[_T]) -> _T:
        """What `work` makes of a transaction, which is committed when it returns, and undone when it raises."""
        if not self.is_sqlite:
            async with self.writing() as connection:
                return await connection.run_sync(work)
        if self._turn.locked():
            # Somebody writes statement by statement: rather wait here than poll.
            async with asyncio.timeout(self._timeout), self._turn:
                pass
        return await self._transacts.visit(work, self._timeout)

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncConnection]:
        """A connection without a transaction: each statement sees what is committed when it begins."""
        async with asyncio.timeout(self._timeout), self._reader.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction: committed when the block ends, undone when it raises."""
        turn = self._turn if self.is_sqlite else nullcontext()
        async with asyncio.timeout(self._timeout) as limit, turn, self.engine.connect() as connection:
            await connection.begin()
            if self.is_sqlite:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            # A commit that was asked for is waited for: giving up here could report as failed what was stored.
            limit.reschedule(None)
            await connection.commit()

    async def undo_stalled(self) -> None:
        """On PostgreSQL, undo what processes that stand still have begun and hold up others with."""
        if not self.is_sqlite:
            await self.look(lambda connection: undo_stalled(connection, self._stalled_secs))

    async def close(self) -> None:
        """Close all connections."""
        await self._looks.close()
        await self._transacts.close()
        await self.engine.dispose()


def _sqlite(url: URL, settings: DatabaseSettings) -> AsyncEngine:
    options = {"isolation_level": None, "timeout": settings.sqlite_busy_timeout_secs}
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.connect_timeout_secs,
        connect_args={**options, "async_creator_fn": _open_sqlite},
    )
    _prepare_sqlite(engine.sync_engine, settings, lambda: await_(asyncio.sleep(_PAUSE)))
    return engine


def _direct(url: URL, settings: DatabaseSettings) -> Engine:
    """Opens what the threads use: a connection for each, for as long as it lives."""
    options = {"isolation_level": None, "timeout": settings.sqlite_busy_timeout_secs}
    plain = url.set(drivername="sqlite")
    engine = create_engine(plain, hide_parameters=True, poolclass=NullPool, connect_args=options)
    _prepare_sqlite(engine, settings, lambda: time.sleep(_PAUSE))
    return engine


def _prepare_sqlite(engine: Engine, settings: DatabaseSettings, pause: Callable[[], object]) -> None:
    pragmas = (
        f"PRAGMA synchronous={settings.sqlite_synchronous}",
        "PRAGMA foreign_keys=ON",
        # What is deleted is overwritten: content that was told to go does not linger in free pages.
        "PRAGMA secure_delete=ON",
    )
    _on_connect(engine, pragmas, lambda cursor: _enter_wal(cursor, settings.sqlite_busy_timeout_secs, pause))
    event.listen(engine, "handle_error", _replace_what_may_not_write)


def _replace_what_may_not_write(context: ExceptionContext) -> None:
    if is_to_be_replaced(context.original_exception):
        context.is_disconnect = True


def _enter_wal(cursor: Any, patience: float, pause: Callable[[], object]) -> None:
    """Switch the file to WAL mode, once in its life.

    SQLite does not wait for others here, whatever its busy timeout: two processes that meet at a new file would fail.
    """
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if patience <= 0 or error.sqlite_errorcode not in _BUSY:
                raise
            pause()
            patience -= _PAUSE
        else:
            return


async def _open_sqlite(*place: Any, **options: Any) -> OneHopConnection:
    """What SQLAlchemy does by itself, except that a connection which cannot be opened leaves no thread behind.

    aiosqlite only asks its thread to end then; where the event loop ends first, the thread dies of it, and says so.
    """
    connection = OneHopConnection(lambda: sqlite3.connect(*place, **options))
    thread = connection._thread  # pyright: ignore[reportPrivateUsage] # noqa: SLF001 - SQLAlchemy does so, too
    thread.daemon = True
    try:
        await connection
    except Exception:
        await asyncio.to_thread(thread.join)
        raise
    return connection


def _postgresql(url: URL, settings: DatabaseSettings) -> AsyncEngine:
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.connect_timeout_secs,
        connect_args={"timeout": settings.connect_timeout_secs, "command_timeout": settings.op_timeout_secs},
    )
    # What runs here are look-ups by key. Left alone, PostgreSQL plans them by the size a table had when it was last
    # counted, joins a whole tenant by hash on the way up, and compiles for longer than the statement takes.
    unwanted = ("jit", "enable_hashjoin", "enable_mergejoin", "enable_material", "enable_seqscan")
    wanted: dict[str, str] = {**dict.fromkeys(unwanted, "off"), "application_name": APPLICATION}
    # A process that is stopped in the middle of a transaction would keep its runs from being taken over.
    wanted["idle_in_transaction_session_timeout"] = str(round(settings.postgresql_idle_transaction_secs * 1000))
    _on_connect(
        engine.sync_engine, ("SELECT " + ", ".join(f"set_config('{k}', '{v}', false)" for k, v in wanted.items()),)
    )
    event.listen(engine.sync_engine, "checkout", _ensure_there)
    return engine


def _ensure_there(connection: Any, record: Any, _proxy: Any) -> None:
    """Have a connection that is gone replaced. Asking costs as much as a transaction, so it is only asked of those
    that were not used lately; of the others it is known here when they were closed."""
    now = time.monotonic()
    used, record.info["used"] = record.info.get("used", now), now
    if connection.driver_connection.is_closed():
        raise DisconnectionError
    if now - used > _FRESH_SECS:
        try:
            connection.ping()
        except Exception as error:
            raise DisconnectionError from error


def _on_connect(
    engine: Engine, statements: tuple[str, ...], first: Callable[[Any], None] = lambda _cursor: None
) -> None:
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        first(cursor)
        for statement in statements:
            cursor.execute(statement)
        cursor.close()
        connection.commit()

    event.listen(engine, "connect", prepare)
