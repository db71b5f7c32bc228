"""How a response is asked for, besides what its request says: by which door, and what that door remembers."""

from __future__ import annotations

from msgspec import Struct

from app.responses.ports import NO_HINTS, RouteHints
from app.turn.items import StoredItem


class Circumstances(Struct, frozen=True, kw_only=True):
    """`context` replaces what `previous_response_id` would be looked up for. Without `generate` no model is asked: the
    response is complete, and empty, at once. `profile` names the contract its events follow, if not the configured one.
    The response gets the id `response_id`, if that was given out already.
    `hints` say where its turns should run; they are not kept, so a run that somebody else takes over goes without them.
    """

    context: tuple[StoredItem, ...] | None = None
    generate: bool = True
    profile: str | None = None
    response_id: str | None = None
    hints: RouteHints = NO_HINTS


USUAL = Circumstances()
