"""A gateway whose SQLite can be made read-only under it: `python -m tests.support.write_protected SWITCH serve FLAGS…`.

It is the real program; while the file SWITCH is there, SQLite refuses each of its connections what it refuses those to
a file that may not be written. A file that is open for writing stays so whatever becomes of its mode, and a disk with
such a file cannot be mounted read-only, so this is as near as a test comes to a disk that breaks.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from functools import partial
from pathlib import Path
from sqlite3 import dbapi2
from typing import Any

from app.cli.main import main
from tests.support.recording import RECORD_TO, record


def protect(switch: Path) -> None:
    """Have each connection look at the switch before each statement."""

    class Cursor(sqlite3.Cursor):
        def execute(self, *given: Any) -> sqlite3.Cursor:
            self._look()
            return super().execute(*given)

        def executemany(self, *given: Any) -> sqlite3.Cursor:
            self._look()
            return super().executemany(*given)

        def _look(self) -> None:
            super().execute(f"PRAGMA query_only={'ON' if switch.exists() else 'OFF'}")

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    sqlite3.connect = dbapi2.connect = partial(sqlite3.connect, factory=Connection)


if __name__ == "__main__":
    record(Path(os.environ[RECORD_TO]))
    protect(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
