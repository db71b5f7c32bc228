"""Faults after which a connection is of no use, though it is still there."""

from __future__ import annotations

import sqlite3
from typing import Final

# What is left of an error's code without the details.
_PRIMARY: Final = 0xFF


def is_to_be_replaced(error: BaseException) -> bool:
    """Whether SQLite may not write here. A file that may not be written when it is opened is opened for reading, and
    stays so: have it opened again."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & _PRIMARY == sqlite3.SQLITE_READONLY
