"""The seam through which content reaches the disk: everything a client or a model said passes one `Sealer`."""

from __future__ import annotations

from typing import Protocol


class Sealer(Protocol):
    """Turns content into what is stored, and back.

    `place` names where it is kept (`items/<chain>/<position>`, `responses/<id>`); it never changes, so that a sealed
    value can be bound to it. Only `ready` waits: the others find what they need of the tenant's keys at hand.
    """

    async def ready(self, tenant: str) -> None:
        """Have the tenant's keys at hand, making them when there are none. Raises `Unavailable`."""
        ...

    def seal(self, tenant: str, place: str, plain: bytes) -> bytes: ...

    def open(self, tenant: str, place: str, sealed: bytes) -> bytes: ...

    def name(self, tenant: str, person: str) -> str:
        """A name for a person, always the same one, that tells nothing to those without the tenant's keys."""
        ...


class Clear:
    """Stores content as it is."""

    async def ready(self, tenant: str) -> None:
        """Nothing is needed."""

    def seal(self, tenant: str, place: str, plain: bytes) -> bytes:
        """`plain`."""
        del tenant, place
        return plain

    def open(self, tenant: str, place: str, sealed: bytes) -> bytes:
        """`sealed`."""
        del tenant, place
        return sealed

    def name(self, tenant: str, person: str) -> str:
        """`person`."""
        del tenant
        return person
