"""Migrations bring any database to head, and nothing runs on one that is not there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from app.db.engine import Database, with_driver
from app.db.migrate import (
    SchemaMismatch,
    ensure_current,
    head,
    is_empty,
    metadata_matches_head,
    script_location,
    upgrade,
)
from app.db.settings import DatabaseSettings
from app.history import tables
from app.history.seal import Clear
from app.history.store import SqlHistoryStore
from app.turn.ids import RandomIds
from tests.contract.history.conftest import SETTINGS
from tests.contract.history.making import response


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return asyncio.run(request.getfixturevalue("postgres").create(f"empty_{uuid.uuid4().hex}"))


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Database]:
    """The same, open."""
    database = Database(with_driver(empty_url), DatabaseSettings())
    yield database
    await database.close()


async def test_an_empty_database_comes_to_head_and_works(empty: Database) -> None:
    assert await is_empty(empty)
    await upgrade(empty)
    await ensure_current(empty)
    assert not await is_empty(empty)
    store = SqlHistoryStore(empty, RandomIds(), Clear())
    await store.save("t", response("a"))
    await upgrade(empty)
    assert len(await store.context("t", "a")) == 3


async def test_two_processes_may_upgrade_at_once(empty_url: str) -> None:
    databases = [Database(with_driver(empty_url), SETTINGS) for _ in range(4)]
    await asyncio.gather(*(upgrade(database) for database in databases))
    await ensure_current(databases[0])
    for database in databases:
        await database.close()


async def test_the_migrations_make_exactly_the_tables_of_the_code(empty: Database) -> None:
    await upgrade(empty)
    async with empty.reading() as connection:
        made = await connection.run_sync(_shape)
    metadata = tables.chains.metadata
    assert set(made) == {*metadata.tables, "alembic_version"}
    for table in metadata.sorted_tables:
        columns, key, indexes, foreign = made[table.name]
        assert columns == [(column.name, column.nullable) for column in table.columns]
        assert key == (table.primary_key.name, [column.name for column in table.primary_key])
        assert indexes == {index.name: [column.name for column in index.columns] for index in table.indexes}
        # SQLite does not tell the names of foreign keys as reliably; what they tie together is enough.
        assert foreign == sorted(
            ([column.name for column in each.columns], each.referred_table.name)
            for each in table.foreign_key_constraints
        )


def _shape(connection: sa.Connection):
    inspector = sa.inspect(connection)
    return {
        name: (
            [(column["name"], column["nullable"]) for column in inspector.get_columns(name)],
            (inspector.get_pk_constraint(name)["name"], inspector.get_pk_constraint(name)["constrained_columns"]),
            {index["name"]: index["column_names"] for index in inspector.get_indexes(name)},
            sorted((each["constrained_columns"], each["referred_table"]) for each in inspector.get_foreign_keys(name)),
        )
        for name in inspector.get_table_names()
    }


async def test_the_check_passes_and_notices_a_table_nobody_migrated() -> None:
    await metadata_matches_head()
    metadata = tables.chains.metadata
    extra = sa.Table("forgotten", metadata, sa.Column("id", sa.Text, primary_key=True))
    try:
        with pytest.raises(SchemaMismatch, match="forgotten"):
            await metadata_matches_head()
    finally:
        metadata.remove(extra)


async def test_an_empty_database_is_refused_with_the_command(empty: Database) -> None:
    with pytest.raises(SchemaMismatch, match=r"no schema yet.*shepherd migrate"):
        await ensure_current(empty)


async def test_a_newer_database_is_refused_and_left_alone(empty: Database) -> None:
    await upgrade(empty)
    async with empty.writing() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '299901010000'")
    for attempt in (ensure_current, upgrade):
        with pytest.raises(SchemaMismatch, match=f"299901010000.*{head()}"):
            await attempt(empty)


async def test_an_upgrade_that_fails_changes_nothing(empty: Database) -> None:
    async with empty.writing() as connection:
        await connection.exec_driver_sql("CREATE TABLE responses (id TEXT)")
    with pytest.raises(sa.exc.DBAPIError):
        await upgrade(empty)
    async with empty.reading() as connection:
        assert await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()) == ["responses"]


async def test_items_of_an_older_database_get_to_know_whose_they_are(empty: Database) -> None:
    def to_older(connection: sa.Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(script_location()))
        config.attributes["connection"] = connection
        command.upgrade(config, "202611241300")

    async with empty.writing() as connection:
        await connection.run_sync(to_older)
        await connection.exec_driver_sql("INSERT INTO chains (tenant, id, fork_position) VALUES ('t', 'c', 0)")
        for position in range(6):
            await connection.exec_driver_sql(
                f"INSERT INTO items (tenant, chain_id, position, item_id, body) VALUES ('t', 'c', {position}, 'i', '')"
            )
        for name, start, end, subject in (("a", 0, 2, "'ann'"), ("b", 2, 4, "NULL"), ("c", 4, 6, "'bob'")):
            await connection.exec_driver_sql(
                "INSERT INTO responses (tenant, id, chain_id, start_position, input_end, end_position, created_at,"
                f" status, model, snapshot, subject) VALUES ('t', '{name}', 'c', {start}, {start}, {end}, 1,"
                f" '', '', '', {subject})"
            )
    await upgrade(empty)
    async with empty.reading() as connection:
        rows = await connection.execute(sa.select(tables.items.c.subject).order_by(tables.items.c.position))
        assert list(rows.scalars()) == ["ann", "ann", None, None, "bob", "bob"]


def test_it_works_from_any_directory(tmp_path: Path) -> None:
    program = (
        "import asyncio\n"
        "from app.db.engine import Database, with_driver\n"
        "from app.db.migrate import ensure_current, upgrade\n"
        "from app.db.settings import DatabaseSettings\n"
        "async def main():\n"
        "    database = Database(with_driver('sqlite:///here.db'), DatabaseSettings())\n"
        "    await upgrade(database)\n"
        "    await ensure_current(database)\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=180, env=os.environ)
    assert (tmp_path / "here.db").exists()
