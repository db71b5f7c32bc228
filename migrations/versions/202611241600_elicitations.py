"""Calls that have asked their user something, and wait for the answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "202611241600"
down_revision = "202611241500"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mcp_elicitations",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("response_id", sa.Text(), nullable=False),
        sa.Column("server_label", sa.Text(), nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=False),
        sa.Column("used_at", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_mcp_elicitations"),
    )
    op.create_index("ix_mcp_elicitations_tenant_created_at", "mcp_elicitations", ["tenant", "created_at"], unique=False)
    op.create_index("ix_mcp_elicitations_expires_at", "mcp_elicitations", ["expires_at"], unique=False)
