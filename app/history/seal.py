"""The seam through which content reaches the disk: everything a client or a model said passes one `Sealer`."""

from __future__ import annotations

from typing import Protocol


class Sealer(Protocol):
    """Turns content into what is stored, and back.

    `place` names where it is kept (`items/<chain>/<position>`, `responses/<id>`); it never changes, so that a sealed
    value can be bound to it. Neither method waits: what they need of the tenant's keys is at hand before.
    """

    def seal(self, tenant: str, place: str, plain: bytes) -> bytes: ...

    def open(self, tenant: str, place: str, sealed: bytes) -> bytes: ...


class Clear:
    """Stores content as it is."""

    def seal(self, tenant: str, place: str, plain: bytes) -> bytes:
        """`plain`."""
        del tenant, place
        return plain

    def open(self, tenant: str, place: str, sealed: bytes) -> bytes:
        """`sealed`."""
        del tenant, place
        return sealed
