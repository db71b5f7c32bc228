"""The database's own clock. Processes that share a database need one time between them, and theirs may differ."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class db_now(FunctionElement[float]):  # noqa: N801 - it reads as the SQL function it is
    """Seconds since the epoch, now."""

    type = Double[float]()
    inherit_cache = True
    name = "db_now"


def _sqlite(_element: db_now, _compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


def _postgresql(_element: db_now, _compiler: Any, **_: Any) -> str:
    # Not now(): that is when the transaction began, and this one may have waited for a lock.
    return "(extract(epoch from clock_timestamp())::double precision)"


compiles(db_now, "sqlite")(_sqlite)
compiles(db_now, "postgresql")(_postgresql)
