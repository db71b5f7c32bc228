"""What the MCP room stores: servers, tool definitions as first seen, credentials, calls that wait for people, and each
tenant's policy.

Everything begins with the tenant. What only its owner may read (headers, tokens, arguments of calls that wait) is
sealed; `config` holds nothing secret.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, Table, Text

from app.db.metadata import metadata

# A label can be deleted and given again; the `id` is what sessions, definitions and credentials belong to.
servers: Final = Table(
    "mcp_servers",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("id", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("config", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

# `accepted` is the definition that may be used, `seen` the last one the server showed; they differ while it waits.
definitions: Final = Table(
    "mcp_definitions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("place", Text, primary_key=True),
    Column("tool", Text, primary_key=True),
    Column("accepted_digest", Text, nullable=False),
    Column("accepted", Text, nullable=False),
    Column("seen_digest", Text, nullable=False),
    Column("seen", Text, nullable=False),
    Column("first_seen_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

# `principal` is empty for a credential that the whole tenant shares.
credentials: Final = Table(
    "mcp_credentials",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("server", Text, primary_key=True),
    Column("principal", Text, primary_key=True),
    Column("version", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
)

enrolments: Final = Table(
    "mcp_enrolments",
    metadata,
    Column("state_digest", LargeBinary, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("server", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

policies: Final = Table(
    "mcp_policies",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

approvals: Final = Table(
    "mcp_approvals",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("response_id", Text, nullable=False),
    Column("server_label", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("arguments", LargeBinary, nullable=False),
    Column("arguments_digest", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("expires_at", Float(53), nullable=False),
    Column("second_person", Boolean, nullable=False),
    Column("word", Boolean),
    Column("decided_by", Text),
    Column("decided_at", Float(53)),
    Column("used_at", Float(53)),
    Index(None, "tenant", "created_at"),
    Index(None, "expires_at"),
)

# `sealed` is what the call is gone on with: its arguments, what it asks, the server's own state, its approval.
elicitations: Final = Table(
    "mcp_elicitations",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("response_id", Text, nullable=False),
    Column("server_label", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("expires_at", Float(53), nullable=False),
    Column("used_at", Float(53)),
    Index(None, "tenant", "created_at"),
    Index(None, "expires_at"),
)
