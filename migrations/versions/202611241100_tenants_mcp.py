"""Tenants, keys, MCP servers, credentials, approvals' policy and the audit log."""

from __future__ import annotations

revision = "202611241100"
down_revision = "202611240300"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""
