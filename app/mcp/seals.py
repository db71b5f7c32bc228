"""The seam through which this room's secrets reach the disk."""

from __future__ import annotations

from typing import Protocol


class Sealer(Protocol):
    """Turns what is secret into what is stored, and back. `place` names where it is kept, and binds it to there.

    Only `ready` waits: the others find what they need of the tenant's keys at hand.
    """

    async def ready(self, tenant: str) -> None:
        """Have the tenant's keys at hand. Raises `Unavailable`."""
        ...

    def seal(self, tenant: str, place: str, plain: bytes) -> bytes: ...

    def open(self, tenant: str, place: str, sealed: bytes) -> bytes: ...
