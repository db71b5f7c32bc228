"""History: chains, their items, and the responses that point into them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "202611240300"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "chains",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("fork_position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_chains"),
        sa.ForeignKeyConstraint(
            ["tenant", "parent_id"], ["chains.tenant", "chains.id"], name="fk_chains_tenant_parent_id_chains"
        ),
    )
    op.create_index("ix_chains_tenant_parent_id_fork_position", "chains", ["tenant", "parent_id", "fork_position"])
    op.create_table(
        "items",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "chain_id", "position", name="pk_items"),
        sa.ForeignKeyConstraint(
            ["tenant", "chain_id"], ["chains.tenant", "chains.id"], name="fk_items_tenant_chain_id_chains"
        ),
    )
    op.create_index("ix_items_tenant_item_id", "items", ["tenant", "item_id"])
    op.create_table(
        "responses",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.Text(), nullable=False),
        sa.Column("start_position", sa.Integer(), nullable=False),
        sa.Column("input_end", sa.Integer(), nullable=False),
        sa.Column("end_position", sa.Integer(), nullable=False),
        sa.Column("previous_id", sa.Text(), nullable=True),
        sa.Column("conversation_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("snapshot", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_responses"),
        sa.ForeignKeyConstraint(
            ["tenant", "chain_id"], ["chains.tenant", "chains.id"], name="fk_responses_tenant_chain_id_chains"
        ),
    )
    op.create_index("ix_responses_tenant_chain_id_end_position", "responses", ["tenant", "chain_id", "end_position"])
