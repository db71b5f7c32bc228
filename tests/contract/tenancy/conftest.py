"""The same databases history is tested on."""

from tests.contract.history.conftest import database, postgres, postgres_url, sqlite_path, sqlite_template, url

__all__ = ["database", "postgres", "postgres_url", "sqlite_path", "sqlite_template", "url"]
