"""Who asks, from where, and how they want their events: what a request's headers say of it."""

from __future__ import annotations

from litestar.types import Scope
from msgspec import Struct

from app.api.placement import hints_of
from app.api.principal import is_from_elsewhere, principal_of, tenant_of
from app.responses.circumstances import Circumstances
from app.responses.ports import NO_HINTS, RouteHints
from app.turn.errors import InvalidRequest

__all__ = ["Caller", "caller_of", "is_from_elsewhere", "tenant_of"]

# A request's own choice between the two contracts, over the configured `stream_profile`.
PROFILE_HEADER = b"x-shepherd-profile"
_PROFILES = frozenset((b"openai", b"openresponses"))


class Caller(Struct, frozen=True):
    """Who asks, by which contract they want their events, and where they want their turns to run, if they say."""

    tenant: str
    principal: str = ""
    profile: str | None = None
    hints: RouteHints = NO_HINTS

    @property
    def usual(self) -> Circumstances:
        """What this caller's responses have in common."""
        return Circumstances(profile=self.profile, hints=self.hints)


def caller_of(scope: Scope) -> Caller:
    """Who asks. Raises `InvalidRequest` for a profile there is not."""
    principal = principal_of(scope)
    return Caller(principal.tenant, principal.id, _profile_of(scope), hints_of(scope))


def _profile_of(scope: Scope) -> str | None:
    given = next((value for name, value in scope["headers"] if name == PROFILE_HEADER), None)
    if given is None:
        return None
    if given not in _PROFILES:
        message = "The header 'x-shepherd-profile' names a contract: openai or openresponses."
        raise InvalidRequest(message, code="invalid_value")
    return given.decode()
