"""The shape of history: a tree of items, not a pile of transcripts.

A chain is a run of items; a chain that forks from another holds only what comes after the fork. Positions count from
the first item of the whole context, so an item has the same position in every context that holds it, and the context
of a response is exactly the positions 0 … end_position - 1, each on one chain of its lineage.

A response points at its place: [start_position, input_end) is its own input, [input_end, end_position) its output.
A response that continues the tip of a chain goes on in that chain; any other continuation forks. Which of two
concurrent continuations goes on is decided by the primary key of `items`, not by a lock.

What is needed: of a chain, the positions below the highest end of its responses and conversations (see `desk_tables`)
and the highest fork of its children.
The rest goes with the response that was the last to need it; a chain that nothing needs goes altogether.

Item ids are not unique: a client may send the same item again, and then it is there again. Ids minted here are.
Bodies, snapshots and requests are content, and sealed; everything else is the frame that finds them.

A response being made is a run, and has a row in `runs` until it is concluded; the row is also the lock of the
conversation it will be part of. What happens to a run is a log of entries: each says what the run was fed (its steps)
and what it told its client (its events), of one moment, together. The log outlives the run, for those who read it late.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)

from app.db.metadata import metadata

_NAMED: Final = text("subject IS NOT NULL")

chains: Final = Table(
    "chains",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("parent_id", Text),
    Column("fork_position", Integer, nullable=False),
    ForeignKeyConstraint(["tenant", "parent_id"], ["chains.tenant", "chains.id"]),
    Index(None, "tenant", "parent_id", "fork_position"),
)

items: Final = Table(
    "items",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("chain_id", Text, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("item_id", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    # As that of the response it came with, which it may outlive.
    Column("subject", Text),
    ForeignKeyConstraint(["tenant", "chain_id"], ["chains.tenant", "chains.id"]),
    Index(None, "tenant", "item_id"),
    Index(None, "tenant", "subject", sqlite_where=_NAMED, postgresql_where=_NAMED),
)

responses: Final = Table(
    "responses",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("chain_id", Text, nullable=False),
    Column("start_position", Integer, nullable=False),
    Column("input_end", Integer, nullable=False),
    Column("end_position", Integer, nullable=False),
    Column("previous_id", Text),
    Column("conversation_id", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("snapshot", LargeBinary, nullable=False),
    # When the response is forgotten, in seconds since the epoch; none: never.
    Column("expires_at", BigInteger),
    # A keyed hash of the end user the request named, to find what is theirs.
    Column("subject", Text),
    ForeignKeyConstraint(["tenant", "chain_id"], ["chains.tenant", "chains.id"]),
    Index(None, "tenant", "chain_id", "end_position"),
    Index(None, "tenant", "created_at", "id"),
    Index(None, "expires_at"),
    Index(None, "tenant", "subject"),
)

runs: Final = Table(
    "runs",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    # Who may write about the run, until when (seconds since the epoch, by the database's clock; 0: nobody has begun).
    # Each new owner raises the fence, and what is written under a lower one is refused.
    Column("owner", Text),
    Column("fence", Integer, nullable=False),
    Column("expires", Double, nullable=False),
    Column("background", Boolean, nullable=False),
    Column("cancelled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("conversation_id", Text),
    # What its maker needs to begin again; none of a run that nothing is remembered of but what it holds.
    Column("request", LargeBinary),
    # One run at a time holds a conversation. Runs without one do not meet here: NULLs are not equal.
    Index(None, "tenant", "conversation_id", unique=True),
    Index(None, "expires"),
    Index(None, "owner"),
)

entries: Final = Table(
    "entries",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("response_id", Text, primary_key=True),
    Column("position", Integer, primary_key=True),
    # The number of the last event told when the entry was over; -1: none was yet.
    Column("sequence_number", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

tenant_keys: Final = Table(
    "tenant_keys",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    # The name of the master key that opens `wrapped`.
    Column("master", Text, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
)
