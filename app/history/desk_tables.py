"""What clients keep here beside responses: conversations, prompts, and the keys of requests they may repeat.

A conversation points into the tree of items as a response does: its items are the positions 0 … end_position - 1 of
the lineage of its chain. What is added goes on at the end; where somebody else went on from there, the conversation
forks, and so it does at an item that is taken out of it. Its `version` counts these changes: who adds what was made
from an older version is refused.

Metadata, prompts and everything a person wrote are content, and sealed.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKeyConstraint, Index, Integer, LargeBinary, Table, Text

from app.db.metadata import metadata

conversations: Final = Table(
    "conversations",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("chain_id", Text, nullable=False),
    Column("end_position", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("metadata", LargeBinary, nullable=False),
    # When the conversation is forgotten, in seconds since the epoch; none: never.
    Column("expires_at", BigInteger),
    ForeignKeyConstraint(["tenant", "chain_id"], ["chains.tenant", "chains.id"]),
    Index(None, "tenant", "chain_id", "end_position"),
    Index(None, "tenant", "created_at", "id"),
    Index(None, "expires_at"),
)

prompts: Final = Table(
    "prompts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    # The newest version; versions are numbered from 1.
    Column("version", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index(None, "tenant", "created_at", "id"),
)

prompt_versions: Final = Table(
    "prompt_versions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("prompt_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    ForeignKeyConstraint(["tenant", "prompt_id"], ["prompts.tenant", "prompts.id"], ondelete="CASCADE"),
)

request_keys: Final = Table(
    "request_keys",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    # A digest of the request. The request itself is not kept.
    Column("digest", LargeBinary, nullable=False),
    Column("response_id", Text, nullable=False),
    # Whether the response began; until then the key is only held, and not for long.
    Column("begun", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
)
