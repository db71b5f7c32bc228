"""When a conversation is forgotten; and approvals are found by when they expire."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "202611241800"
down_revision = "202611241600"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("conversations", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    op.create_index("ix_conversations_expires_at", "conversations", ["expires_at"])
    op.create_index("ix_mcp_approvals_expires_at", "mcp_approvals", ["expires_at"])
