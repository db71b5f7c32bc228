"""Database URLs: as anybody would write them, with the driver we need."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.db.engine import BadDatabaseUrl, database_url, with_driver
from app.db.settings import DatabaseSettings


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:///x.db", "sqlite+aiosqlite:///x.db"),
        ("sqlite+aiosqlite:////var/x.db", "sqlite+aiosqlite:////var/x.db"),
        ("postgresql://u:p@h:5/d", "postgresql+asyncpg://u:p@h:5/d"),
        ("postgres://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgresql+asyncpg://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgresql://u@/d?host=/run/pg", "postgresql+asyncpg://u@/d?host=%2Frun%2Fpg"),
        ("postgresql://u@h/d?sslmode=require", "postgresql+asyncpg://u@h/d?ssl=require"),
    ],
)
def test_the_async_driver_is_added(given: str, used: str) -> None:
    assert with_driver(given).render_as_string(hide_password=False) == used


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nonsense",
        "mysql://u:hunter2@h/d",
        "postgresql+psycopg2://u:hunter2@h/d",
        "postgresql://u:hunter2@h:port/d",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?cache=shared&uri=true",
        "sqlite:///file:x?mode=memory&uri=true",
    ],
)
def test_what_cannot_be_used_is_refused_without_its_password(given: str) -> None:
    with pytest.raises(BadDatabaseUrl) as caught:
        with_driver(given)
    assert "hunter2" not in str(caught.value)


def test_the_default_is_a_file_in_the_data_directory(tmp_path: Path) -> None:
    assert database_url(DatabaseSettings(), tmp_path).database == str(tmp_path / "shepherd.db")
    chosen = DatabaseSettings(url="postgresql://u@h/d")
    assert database_url(chosen, tmp_path).drivername == "postgresql+asyncpg"
