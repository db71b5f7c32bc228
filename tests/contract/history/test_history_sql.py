"""What the database must show for it: constant statements, range reads by index, no orphans, nothing half written."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import msgspec
import pytest
from sqlalchemy import delete, event
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database, with_driver
from app.db.settings import DatabaseSettings
from app.history import statements, tables
from app.history.seal import Clear
from app.history.store import SqlHistoryStore
from app.turn.errors import GatewayError, NotFound, Unavailable
from app.turn.ids import RandomIds
from tests.contract.history.conftest import SETTINGS
from tests.contract.history.making import build, counting, counts, ids, response
from tests.contract.history.postgres_server import Server
from tests.support.clocks import put_forward

# ── cost ──────────────────────────────────────────────────────────────────────


async def test_a_chain_is_one_chain_and_grows_by_new_items_only(
    sql_store: SqlHistoryStore, database: Database, tenant: str
) -> None:
    await build(sql_store, tenant, {"a": None, "b": "a", "c": "b"})
    assert await counts(database, tenant) == (1, 9, 3)
    await build(sql_store, tenant, {"fork": "b"})
    assert await counts(database, tenant) == (2, 12, 4)


async def _statements(database: Database, work) -> int:
    async with counting(database) as seen:
        await work
    return len([each for each in seen if not each.startswith(("PRAGMA", "SELECT set_config"))])


async def _costs(store: SqlHistoryStore, database: Database, tenant: str, tip: str, first: str) -> list[int]:
    new = response(f"{tip}_next", tip)
    page = {"limit": 5, "order": "desc", "after": first}
    return [
        await _statements(database, store.context(tenant, tip)),
        await _statements(database, store.get(tenant, tip)),
        await _statements(database, store.input_items(tenant, tip, **page)),
        await _statements(database, store.save(tenant, new)),
        await _statements(database, store.delete(tenant, new.id)),
    ]


async def test_statements_do_not_grow_with_the_length_of_a_chain(
    sql_store: SqlHistoryStore, database: Database, tenant: str
) -> None:
    await sql_store.save(tenant, response("r0"))
    shallow = await _costs(sql_store, database, tenant, "r0", "r0_i0")
    await build(sql_store, tenant, {f"r{k}": f"r{k - 1}" for k in range(1, 300)})
    deep = await _costs(sql_store, database, tenant, "r299", "r0_i0")
    assert deep == shallow
    assert deep[0] == 1
    assert len(await sql_store.context(tenant, "r299")) == 900
    assert (await counts(database, tenant))[0] == 1


async def test_statements_do_not_grow_with_the_number_of_forks(
    sql_store: SqlHistoryStore, database: Database, tenant: str
) -> None:
    await build(sql_store, tenant, {"r0": None, "spare0": "r0"})
    shallow = await _costs(sql_store, database, tenant, "r0", "r0_i0")
    # Each response forks from the one before, because a sibling has already taken the chain on.
    for k in range(1, 60):
        await build(sql_store, tenant, {f"r{k}": f"r{k - 1}", f"spare{k}": f"r{k}"})
    assert (await counts(database, tenant))[0] == 60
    deep = await _costs(sql_store, database, tenant, "r59", "r0_i0")
    assert deep[:3] == shallow[:3]
    assert ids(await sql_store.context(tenant, "r59")) == [
        f"r{k}_{own}" for k in range(60) for own in ("i0", "o0", "o1")
    ]


async def test_a_context_is_read_by_the_range_of_each_segment(
    sql_store: SqlHistoryStore, database: Database, tenant: str
) -> None:
    await build(sql_store, tenant, {"a": None, "b": "a", "fork": "a"})
    bound = {"tenant": tenant, "response": "fork", "low": 0, "high": 9}
    async with database.reading() as connection:
        plan = await _plan(connection, bound)
    whole = "\n".join(plan)
    if database.is_sqlite:
        assert "tenant=? AND chain_id=? AND position>? AND position<?" in whole
        assert not [line for line in plan if "SCAN items" in line or "SCAN chains" in line]
    else:
        assert "pk_items" in whole
        assert "Seq Scan" not in whole
        assert [
            line for line in plan if "Index Cond" in line and "lineage.chain_id" in line and "lineage.first" in line
        ]


async def _plan(connection: AsyncConnection, bound: dict[str, str | int]) -> list[str]:
    """How the database reads a window: the very text it is sent, in the very order of its parameters."""
    dialect = connection.dialect
    compiled = statements.WINDOW.compile(dialect=dialect)
    prefix = "EXPLAIN QUERY PLAN " if dialect.name == "sqlite" else "EXPLAIN "
    values = tuple(bound[name] for name in compiled.positiontup or ())
    return [str(row) for row in await connection.exec_driver_sql(prefix + str(compiled), values)]


# ── concurrency ───────────────────────────────────────────────────────────────


async def test_one_of_many_concurrent_continuations_goes_on_and_the_rest_fork(
    sql_store: SqlHistoryStore, database: Database, tenant: str
) -> None:
    await sql_store.save(tenant, response("root"))
    await asyncio.gather(*(sql_store.save(tenant, response(f"n{k}", "root")) for k in range(12)))
    assert await counts(database, tenant) == (12, 3 + 36, 13)


async def test_two_processes_may_continue_the_same_tip(url: str, tenant: str) -> None:
    databases = [Database(with_driver(url), SETTINGS) for _ in range(2)]
    stores = [SqlHistoryStore(database, RandomIds(), Clear()) for database in databases]
    await stores[0].save(tenant, response("root"))
    for k in range(10):
        await asyncio.gather(*(store.save(tenant, response(f"n{k}{i}", "root")) for i, store in enumerate(stores)))
    for k, i in itertools.product(range(10), range(2)):
        assert ids(await stores[1 - i].context(tenant, f"n{k}{i}"))[3:] == [
            f"n{k}{i}_{own}" for own in ("i0", "o0", "o1")
        ]
    assert (await counts(databases[0], tenant))[0] == 20
    for database in databases:
        await database.close()


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_saves_and_deletes_loses_nothing_and_leaves_nothing(url: str, tenant: str, seed: int) -> None:
    chance = random.Random(seed)
    databases = [Database(with_driver(url), SETTINGS) for _ in range(2)]
    stores = [SqlHistoryStore(database, RandomIds(), Clear()) for database in databases]
    live: dict[str, list[str]] = {}
    names = iter(f"r{k}" for k in itertools.count())
    refused = 0

    async def work(store: SqlHistoryStore) -> None:
        nonlocal refused
        for _ in range(25):
            known = list(live)
            if known and chance.random() < 0.45:
                doomed = chance.choice(known)
                del live[doomed]
                await store.delete(tenant, doomed)
                continue
            # Mostly the newest, so that many want the same tip; sometimes one that is being deleted right now.
            previous = chance.choice(known[-3:]) if known and chance.random() < 0.9 else None
            before = list(live.get(previous, ())) if previous else []
            new = response(next(names), previous, given=chance.randint(0, 2), made=chance.randint(0, 2))
            try:
                await store.save(tenant, new)
            except NotFound:
                refused += 1
                continue
            live[new.id] = [*before, *ids(new.input), *ids(new.output)]

    await asyncio.gather(*(work(store) for store in stores * 4))
    for name, expected in live.items():
        assert ids(await stores[0].context(tenant, name)) == expected
    chains, items, responses = await counts(databases[1], tenant)
    assert responses == len(live)
    assert items == len(set().union(*live.values()))
    for name in list(live):
        await stores[0].delete(tenant, name)
    assert await counts(databases[0], tenant) == (0, 0, 0)
    assert chains <= 200
    for database in databases:
        await database.close()


# ── deleting ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", list(itertools.permutations(["a", "b", "left", "right"])))
async def test_any_order_of_deletes_leaves_no_orphan(
    sql_store: SqlHistoryStore, database: Database, tenant: str, order: tuple[str, ...]
) -> None:
    await build(sql_store, tenant, {"a": None, "b": "a", "left": "b", "right": "b"})
    left = {name: set(ids(await sql_store.context(tenant, name))) for name in order}
    for name in order:
        await sql_store.delete(tenant, name)
        del left[name]
        _, items, responses = await counts(database, tenant)
        assert items == len(set().union(*left.values()))
        assert responses == len(left)
    assert await counts(database, tenant) == (0, 0, 0)


async def test_deleting_the_only_leaf_of_many_forks_takes_all_of_them(
    sql_store: SqlHistoryStore, database: Database, tenant: str
) -> None:
    await build(sql_store, tenant, {"r0": None, "spare0": "r0"})
    for k in range(1, 20):
        await build(sql_store, tenant, {f"r{k}": f"r{k - 1}", f"spare{k}": f"r{k}"})
    for k in range(20):
        await sql_store.delete(tenant, f"spare{k}")
    for k in range(19):
        await sql_store.delete(tenant, f"r{k}")
    assert await counts(database, tenant) == (20, 60, 1)
    await sql_store.delete(tenant, "r19")
    assert await counts(database, tenant) == (0, 0, 0)


# ── damage ────────────────────────────────────────────────────────────────────


async def test_half_a_context_is_no_context(sql_store: SqlHistoryStore, database: Database, tenant: str) -> None:
    await build(sql_store, tenant, {"a": None, "b": "a", "fork": "a"})
    async with database.writing() as connection:
        hole = (tables.items.c.tenant == tenant) & (tables.items.c.item_id == "a_o0")
        await connection.execute(delete(tables.items).where(hole))
    for name in ("a", "b", "fork"):
        with pytest.raises(NotFound):
            await sql_store.context(tenant, name)
    for name in ("b", "fork"):
        with pytest.raises(NotFound):
            await sql_store.input_items(tenant, name, limit=100, order="asc", after=None)
    # The hole is in what `a` said, not in what it was given.
    assert ids((await sql_store.input_items(tenant, "a", limit=100, order="asc", after=None)).items) == ["a_i0"]
    with pytest.raises(NotFound):
        await sql_store.get(tenant, "a")
    assert ids((await sql_store.get(tenant, "fork")).output) == ["fork_o0", "fork_o1"]


async def test_what_was_stored_is_there_after_a_restart(url: str, tenant: str) -> None:
    for previous, name in ((None, "a"), ("a", "b")):
        database = Database(with_driver(url), DatabaseSettings())
        await SqlHistoryStore(database, RandomIds(), Clear()).save(tenant, response(name, previous))
        await database.close()
    database = Database(with_driver(url), DatabaseSettings())
    assert len(await SqlHistoryStore(database, RandomIds(), Clear()).context(tenant, "b")) == 6
    await database.close()


# ── content ───────────────────────────────────────────────────────────────────


class Rot13(Clear):
    """A sealer that shows when it was left out, or asked about another place than it sealed for."""

    def seal(self, tenant: str, place: str, plain: bytes) -> bytes:
        return f"{tenant}|{place}|".encode() + bytes(byte ^ 0x55 for byte in plain)

    def open(self, tenant: str, place: str, sealed: bytes) -> bytes:
        prefix = f"{tenant}|{place}|".encode()
        assert sealed.startswith(prefix)
        return bytes(byte ^ 0x55 for byte in sealed[len(prefix) :])


async def test_all_content_passes_the_sealer(sqlite_path: Path, tenant: str) -> None:
    database = Database(with_driver(f"sqlite:///{sqlite_path}"), DatabaseSettings())
    store = SqlHistoryStore(database, RandomIds(), Rot13())
    secret = msgspec.structs.replace(response("a"), snapshot=msgspec.Raw(b'"hello"'))
    await store.save(tenant, secret)
    await build(store, tenant, {"b": "a", "fork": "a"})
    assert b"hello" in bytes((await store.context(tenant, "fork"))[0].raw)
    assert bytes((await store.get(tenant, "a")).snapshot) == b'"hello"'
    await database.close()
    raw = b"".join(path.read_bytes() for path in sqlite_path.parent.glob("history.db*"))
    assert tenant.encode() in raw
    assert b"hello" not in raw


# ── faults ────────────────────────────────────────────────────────────────────


async def _refused(work) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        await work
    assert (caught.value.code, caught.value.status) == ("history_unavailable", 503)
    return caught.value


async def test_a_locked_file_is_unavailable_and_nothing_is_written(sqlite_path: Path, tenant: str) -> None:
    settings = DatabaseSettings(sqlite_busy_timeout_secs=0.05)
    database = Database(with_driver(f"sqlite:///{sqlite_path}"), settings)
    store = SqlHistoryStore(database, RandomIds(), Clear())
    await store.save(tenant, response("a"))
    other = sqlite3.connect(sqlite_path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    await _refused(store.save(tenant, response("b", "a")))
    await _refused(store.delete(tenant, "a"))
    assert len(await store.context(tenant, "a")) == 3
    other.execute("ROLLBACK")
    other.close()
    assert await counts(database, tenant) == (1, 3, 1)
    await store.save(tenant, response("b", "a"))
    await database.close()


async def test_a_write_that_takes_too_long_is_given_up(sqlite_path: Path, tenant: str) -> None:
    settings = DatabaseSettings(sqlite_busy_timeout_secs=0.4, op_timeout_secs=60)
    database = Database(with_driver(f"sqlite:///{sqlite_path}"), settings)
    store = SqlHistoryStore(database, RandomIds(), Clear())
    other = sqlite3.connect(sqlite_path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    saving = asyncio.create_task(_refused(store.save(tenant, response("a"))))
    await asyncio.sleep(0.05)
    put_forward(60)
    await saving
    other.execute("ROLLBACK")
    other.close()
    await store.save(tenant, response("a"))
    assert await counts(database, tenant) == (1, 3, 1)
    await database.close()


async def test_a_read_only_file_can_be_read(sqlite_path: Path, tenant: str) -> None:
    database = Database(with_driver(f"sqlite:///{sqlite_path}"), DatabaseSettings())
    await SqlHistoryStore(database, RandomIds(), Clear()).save(tenant, response("a"))
    await database.close()
    database = Database(with_driver(f"sqlite:///file:{sqlite_path}?mode=ro&uri=true"), DatabaseSettings())
    store = SqlHistoryStore(database, RandomIds(), Clear())
    assert len(await store.context(tenant, "a")) == 3
    await _refused(store.save(tenant, response("b", "a")))
    await _refused(store.delete(tenant, "a"))
    assert await counts(database, tenant) == (1, 3, 1)
    await database.close()


async def test_a_full_disk_is_unavailable_and_nothing_is_written(sqlite_path: Path, tenant: str) -> None:
    database = Database(with_driver(f"sqlite:///{sqlite_path}"), DatabaseSettings())

    def small(connection, _record) -> None:
        connection.cursor().execute("PRAGMA max_page_count=30")

    event.listen(database.direct, "connect", small)
    store = SqlHistoryStore(database, RandomIds(), Clear())
    await store.save(tenant, response("a"))
    await _refused(store.save(tenant, response("big", "a", made=2000)))
    assert await counts(database, tenant) == (1, 3, 1)
    await store.save(tenant, response("b", "a"))
    await database.close()


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path, tenant: str) -> None:
    (tmp_path / "history.db").write_bytes(b"this is not a database" * 100)
    for path in (tmp_path / "history.db", tmp_path / "missing" / "history.db"):
        database = Database(with_driver(f"sqlite:///{path}"), DatabaseSettings())
        store = SqlHistoryStore(database, RandomIds(), Clear())
        await _refused(store.get(tenant, "a"))
        await _refused(store.save(tenant, response("a")))
        await database.close()


async def test_errors_do_not_carry_content(tmp_path: Path, tenant: str, caplog: pytest.LogCaptureFixture) -> None:
    # Whoever ran before may have set another level for the whole process.
    caplog.set_level(logging.WARNING, "app.history")
    database = Database(with_driver(f"sqlite:///{tmp_path / 'empty.db'}"), DatabaseSettings())
    store = SqlHistoryStore(database, RandomIds(), Clear())
    error = await _refused(store.save(tenant, response("a")))
    assert "hello" not in f"{error.message} {error.__cause__} {caplog.text}"
    assert "no such table" in caplog.text
    await database.close()


async def test_a_cancelled_save_leaves_nothing_half_written(
    sql_store: SqlHistoryStore, database: Database, tenant: str
) -> None:
    await sql_store.save(tenant, response("a"))
    for turns in range(60):
        task = asyncio.create_task(sql_store.save(tenant, response(f"b{turns}", "a", made=20)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await sql_store.save(tenant, response("last", "a"))
    _, items, responses = await counts(database, tenant)
    assert items == 3 + (responses - 2) * 21 + 3
    whole = await sql_store.context(tenant, "last")
    assert ids(whole)[3:] == ["last_i0", "last_o0", "last_o1"]


async def test_a_blocked_postgres_is_unavailable_and_nothing_is_written(postgres_url: str, tenant: str) -> None:
    database = Database(with_driver(postgres_url), DatabaseSettings(op_timeout_secs=60))
    store = SqlHistoryStore(database, RandomIds(), Clear())
    await store.save(tenant, response("a"))
    other = await asyncpg.connect(postgres_url)
    # The response row can be written, its items cannot.
    async with other.transaction():
        await other.execute("LOCK TABLE items IN EXCLUSIVE MODE")
        saving = asyncio.create_task(_refused(store.save(tenant, response("b"))))
        async with asyncio.timeout(30):
            while not await other.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110 - PostgreSQL does not tell
                await asyncio.sleep(0.01)
        put_forward(60)
        await saving
    await other.close()
    assert await counts(database, tenant) == (1, 3, 1)
    await store.save(tenant, response("b", "a"))
    await database.close()


async def test_a_postgres_that_restarts_is_unavailable_meanwhile(postgres: Server, tenant: str) -> None:
    database = Database(with_driver(await postgres.create("restarted")), DatabaseSettings())
    async with database.writing() as connection:
        await connection.run_sync(tables.chains.metadata.create_all)
    store = SqlHistoryStore(database, RandomIds(), Clear())
    await store.save(tenant, response("a"))
    postgres.stop()
    try:
        for work in (store.get(tenant, "a"), store.context(tenant, "a"), store.save(tenant, response("b", "a"))):
            await _refused(work)
    finally:
        postgres.start()
    await store.save(tenant, response("b", "a"))
    assert len(await store.context(tenant, "b")) == 6
    await database.close()


async def test_a_pool_that_is_used_up_is_unavailable(url: str, tenant: str) -> None:
    settings = DatabaseSettings(pool_size=1, connect_timeout_secs=60, op_timeout_secs=120)
    database = Database(with_driver(url), settings)
    store = SqlHistoryStore(database, RandomIds(), Clear())
    async with _used_up(database):
        getting = asyncio.create_task(store.get(tenant, "a"))
        await asyncio.sleep(0.05)
        put_forward(120 if database.is_sqlite else 60)
        with pytest.raises(GatewayError) as caught:
            await getting
    assert isinstance(caught.value, Unavailable)
    await database.close()


@asynccontextmanager
async def _used_up(database: Database) -> AsyncIterator[None]:
    """The only connection, or the only thread that reads, is busy."""
    if not database.is_sqlite:
        async with database.reading():
            yield
        return
    begun, enough = threading.Event(), threading.Event()

    def stay(_connection: object) -> None:
        begun.set()
        enough.wait(60)

    busy = asyncio.create_task(database.look(stay))
    await asyncio.to_thread(begun.wait, 60)
    yield
    enough.set()
    await busy
