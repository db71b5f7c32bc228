"""What a response goes on from, for those who keep something between responses."""

from __future__ import annotations

from msgspec import Struct


class Continuation(Struct, frozen=True, kw_only=True):
    """The response that is made, and the response before it or the conversation it belongs to.

    Without a `response` nothing is made: somebody only looks.
    """

    response: str | None = None
    previous: str | None = None
    conversation: str | None = None
