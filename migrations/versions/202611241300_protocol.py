"""Conversations, prompts, approvals of the protocol and idempotency keys."""

from __future__ import annotations

revision = "202611241300"
down_revision = "202611241200"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""
