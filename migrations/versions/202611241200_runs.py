"""Runs with leases, their logs, the tenants' keys, and when and whose a response is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "202611241200"
down_revision = "202611241100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("responses", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    op.add_column("responses", sa.Column("subject", sa.Text(), nullable=True))
    op.create_index("ix_responses_expires_at", "responses", ["expires_at"])
    op.create_index("ix_responses_tenant_subject", "responses", ["tenant", "subject"])
    op.create_table(
        "runs",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("background", sa.Boolean(), nullable=False),
        sa.Column("cancelled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=True),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_runs"),
    )
    op.create_index("ix_runs_tenant_conversation_id", "runs", ["tenant", "conversation_id"], unique=True)
    op.create_index("ix_runs_expires", "runs", ["expires"])
    op.create_index("ix_runs_owner", "runs", ["owner"])
    op.create_table(
        "entries",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("response_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sequence_number", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "response_id", "position", name="pk_entries"),
    )
    op.create_table(
        "tenant_keys",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("master", sa.Text(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "version", name="pk_tenant_keys"),
    )
