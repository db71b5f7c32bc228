"""Calls that wait for a user's answers: when one may be gone on with, and the twin that keeps them in memory."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs

from app.responses.eliciting import Elicitation
from app.responses.ports import Clock
from app.turn.errors import Conflict, NotFound

# How long what has expired is kept, in seconds, so that who comes late is told that.
GRACE_SECS = 86_400.0


class Unanswered(Struct, frozen=True):
    """An elicitation as it is kept. `used`: it was answered."""

    elicitation: Elicitation
    used: bool = False


def check(kept: Unanswered | None, elicitation_id: str, principal: str, now: float) -> Elicitation:
    """The elicitation, if `principal` can still answer it. Raises `NotFound`, `Conflict`."""
    if kept is None or kept.elicitation.principal != principal:
        raise NotFound(f"Elicitation request with id '{elicitation_id}' not found.", param="input")
    if kept.used:
        message = f"Elicitation request '{elicitation_id}' has already been answered."
        raise Conflict(message, code="elicitation_already_answered", param="input")
    if now >= kept.elicitation.expires_at:
        message = f"Elicitation request '{elicitation_id}' has expired."
        raise Conflict(message, code="elicitation_expired", param="input")
    return kept.elicitation


class MemoryElicitations:
    """The `Elicitations` port, for as long as the process lives."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, str], Unanswered] = {}

    async def open(self, tenant: str, elicitations: Sequence[Elicitation]) -> None:
        """See `Elicitations`."""
        self._kept |= {(tenant, each.id): Unanswered(each) for each in elicitations}

    async def find(self, tenant: str, elicitation_id: str, principal: str) -> Elicitation:
        """See `Elicitations`."""
        return check(self._kept.get((tenant, elicitation_id)), elicitation_id, principal, self._clock.now())

    async def consume(self, tenant: str, elicitation_id: str, principal: str) -> None:
        """See `Elicitations`."""
        await self.find(tenant, elicitation_id, principal)
        self._kept[tenant, elicitation_id] = structs.replace(self._kept[tenant, elicitation_id], used=True)

    async def waiting(self, tenant: str, *, limit: int, everything: bool = False) -> Sequence[Unanswered]:
        """What waits for answers now, the newest first; with `everything` also what does not any more."""
        now = self._clock.now()
        mine = [kept for (whose, _), kept in self._kept.items() if whose == tenant]
        waiting = [kept for kept in mine if everything or (not kept.used and now < kept.elicitation.expires_at)]
        return sorted(waiting, key=lambda kept: (-kept.elicitation.created_at, kept.elicitation.id))[:limit]

    async def sweep(self) -> int:
        """Forget what expired long ago; how many there were."""
        before = self._clock.now() - GRACE_SECS
        gone = [place for place, kept in self._kept.items() if kept.elicitation.expires_at <= before]
        for place in gone:
            del self._kept[place]
        return len(gone)
