"""A gateway whose SQLite can be made read-only under it: `python -m tests.support.write_protected SWITCH serve FLAGS…`.

It is the real program; while the file SWITCH is there, SQLite refuses each of its connections what it refuses those to
a file that may not be written. A file that is open for writing stays so whatever becomes of its mode, and a disk with
such a file cannot be mounted read-only, so this is as near as a test comes to a disk that breaks.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event

from app.cli.main import main
from app.db import prepared
from tests.support.recording import RECORD_TO, record


def protect(switch: Path) -> None:
    """Have each connection look at the switch before each statement."""

    @event.listens_for(Engine, "before_cursor_execute")
    def _look(_connection: Any, cursor: Any, *_more: Any) -> None:
        cursor.execute(f"PRAGMA query_only={'ON' if switch.exists() else 'OFF'}")

    # What is handed to the driver by itself passes no event.
    execute = prepared.execute

    def looking(connection: Connection, *given: Any, **named: Any) -> Any:
        _look(connection, connection.connection.driver_connection)
        return execute(connection, *given, **named)

    prepared.execute = looking


if __name__ == "__main__":
    record(Path(os.environ[RECORD_TO]))
    protect(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
