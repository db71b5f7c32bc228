"""Servers in the books of a test."""

from __future__ import annotations

from typing import Any

from app.mcp.books import MemoryBooks, Registered
from app.mcp.rules import ServerConfig, ServerRules


async def register(books: MemoryBooks, label: str, url: str, *, tenant: str = "t", **config: Any) -> Registered:
    """A server that requests can name. `rules` and `auth` as in `ServerConfig`."""
    made = Registered(
        tenant=tenant,
        label=label,
        id=f"srv_{tenant}_{label}",
        version=1,
        config=ServerConfig(url=url, **{"rules": ServerRules(), **config}),
        enabled=True,
        created_at=0,
        updated_at=0,
    )
    await books.add(made)
    return made
