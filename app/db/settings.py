"""What an operator may decide about the database."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class DatabaseSettings(Struct, frozen=True, kw_only=True):
    """Where history is kept. Durations are in seconds."""

    url: Annotated[
        str | None,
        Meta(
            description="SQLAlchemy URL, sqlite:///path or postgresql://…; not set: SQLite in the data directory.",
            extra={"flag": "--database-url"},
        ),
    ] = None
    pool_size: Annotated[int, Meta(ge=1, description="Most connections one process keeps to the database.")] = 8
    connect_timeout_secs: Annotated[
        float, Meta(gt=0, description="How long to wait for a connection, a new one or one of the pool.")
    ] = 5.0
    op_timeout_secs: Annotated[
        float, Meta(gt=0, description="How long one read or write may take before it fails as history_unavailable.")
    ] = 10.0
    postgresql_idle_transaction_secs: Annotated[
        float,
        Meta(
            gt=0,
            description="PostgreSQL: when to undo a transaction whose process stands still; others wait for it.",
        ),
    ] = 5.0
    sqlite_busy_timeout_secs: Annotated[
        float, Meta(ge=0, description="SQLite: how long to wait for another process that is writing.")
    ] = 5.0
    sqlite_synchronous: Annotated[
        Literal["normal", "full"],
        Meta(description="SQLite: full survives a power cut; normal is faster and only survives a crash."),
    ] = "full"
