"""Event log, runs with leases, effects, sealed content and retention."""

from __future__ import annotations

revision = "202611241200"
down_revision = "202611241100"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""
