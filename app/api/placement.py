"""What a client says in headers about where its turns should run."""

from __future__ import annotations

from litestar.types import Scope

from app.responses.ports import NO_HINTS, RouteHints

# The second of each is what clients of SMG send.
_KEYS = (b"x-shepherd-routing-key", b"x-smg-routing-key")
_TARGETS = (b"x-shepherd-target-worker", b"x-smg-target-worker")


def hints_of(scope: Scope) -> RouteHints:
    """The hints in a request's headers: a key whose turns are kept together, and a worker's URL or id for debugging."""
    affinity = target = None
    for name, value in scope["headers"]:
        if name in _KEYS:
            affinity = value.decode("latin-1") or None
        elif name in _TARGETS:
            target = value.decode("latin-1") or None
    return NO_HINTS if affinity is None and target is None else RouteHints(affinity=affinity, target=target)
