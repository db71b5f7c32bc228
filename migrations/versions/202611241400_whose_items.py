"""Whose an item is, so that it is found when it has outlived the response it came with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "202611241400"
down_revision = "202611241300"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("items", sa.Column("subject", sa.Text(), nullable=True))
    op.execute(
        "UPDATE items SET subject = r.subject FROM responses AS r WHERE r.subject IS NOT NULL"
        " AND items.tenant = r.tenant AND items.chain_id = r.chain_id"
        " AND items.position >= r.start_position AND items.position < r.end_position"
    )
    named = sa.text("subject IS NOT NULL")
    op.create_index(
        "ix_items_tenant_subject", "items", ["tenant", "subject"], sqlite_where=named, postgresql_where=named
    )
