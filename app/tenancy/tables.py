"""Tenants, their keys, and the log of what was done in their name.

A key is stored as the SHA-256 of itself: keys are made here with 256 random bits, so that nothing slower is needed to
keep them from being guessed. Rows of keys are never deleted: once there was one, the server is never open again.
Rows of the log are only ever added.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Float, ForeignKeyConstraint, Index, Integer, LargeBinary, Table, Text

from app.db.metadata import metadata

tenants: Final = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    ForeignKeyConstraint(["tenant"], ["tenants.id"]),
    Index(None, "digest", unique=True),
    Index(None, "tenant", "name"),
)

audit: Final = Table(
    "audit",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("principal", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("server", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("seconds", Float(53), nullable=False),
    Column("arguments_digest", Text, nullable=False),
    Column("arguments", Text),
    Column("detail", Text, nullable=False),
    Index(None, "tenant", "number"),
)
