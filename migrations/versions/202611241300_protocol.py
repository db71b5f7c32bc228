"""Conversations, prompts, approvals of the protocol and idempotency keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "202611241300"
down_revision = "202611241200"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_responses_tenant_created_at_id", "responses", ["tenant", "created_at", "id"])
    _conversations()
    _prompts()
    _request_keys()


def _conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("chain_id", sa.Text(), nullable=False),
        sa.Column("end_position", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("metadata", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_conversations"),
        sa.ForeignKeyConstraint(
            ["tenant", "chain_id"], ["chains.tenant", "chains.id"], name="fk_conversations_tenant_chain_id_chains"
        ),
    )
    columns = ["tenant", "chain_id", "end_position"]
    op.create_index("ix_conversations_tenant_chain_id_end_position", "conversations", columns)
    op.create_index("ix_conversations_tenant_created_at_id", "conversations", ["tenant", "created_at", "id"])


def _prompts() -> None:
    op.create_table(
        "prompts",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name="pk_prompts"),
    )
    op.create_index("ix_prompts_tenant_created_at_id", "prompts", ["tenant", "created_at", "id"])
    op.create_table(
        "prompt_versions",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("prompt_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "prompt_id", "version", name="pk_prompt_versions"),
        sa.ForeignKeyConstraint(
            ["tenant", "prompt_id"],
            ["prompts.tenant", "prompts.id"],
            name="fk_prompt_versions_tenant_prompt_id_prompts",
            ondelete="CASCADE",
        ),
    )


def _request_keys() -> None:
    op.create_table(
        "request_keys",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("response_id", sa.Text(), nullable=False),
        sa.Column("begun", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_request_keys"),
    )
    op.create_index("ix_request_keys_expires_at", "request_keys", ["expires_at"])
