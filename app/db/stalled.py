"""Transactions whose process was stopped in the middle of a statement.

PostgreSQL undoes a transaction that is idle for too long, but these are not idle to it. A driver sends a statement that
it has not prepared yet in two parts, and waits for an answer in between; a process that is stopped there leaves its
session active, waiting for the client, with all it has locked. `statement_timeout` does not run in that state either.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

# How our own sessions are known: anybody else's may well wait so long, for the rest of a COPY.
APPLICATION: Final = "shepherd"

# Nobody may end sessions of other roles, and nobody needs to.
_END: Final = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = session_user AND application_name = :application
    AND xact_start IS NOT NULL AND state = 'active' AND wait_event_type = 'Client' AND wait_event = 'ClientRead'
    AND state_change < clock_timestamp() - make_interval(secs => :seconds)
""")


def undo_stalled(connection: Connection, seconds: float) -> int:
    """End our sessions on this PostgreSQL database that have waited for `seconds` in the middle of a statement; how
    many."""
    return len(connection.execute(_END, {"application": APPLICATION, "seconds": seconds}).all())
