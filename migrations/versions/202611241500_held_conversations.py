"""A run that is not remembered keeps nothing but its hold of a conversation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "202611241500"
down_revision = "202611241400"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.alter_column("request", existing_type=sa.LargeBinary(), nullable=True)
