"""Which responses follow each other, so that a server that remembers meets one thread of them, and no two.

A response that goes on from another takes over its thread: whoever goes on from that one again, another branch, begins
a thread of its own, since what the server remembers by then is not what it was. A conversation is one thread, whoever
adds to it. Kept in memory, as the sessions are that threads belong to.
"""

from __future__ import annotations

from collections import OrderedDict

from app.mcp.sessions import Owner
from app.responses.continuation import Continuation

_MOST_KEPT = 10_000


class Threads:
    """The threads, by their last response. The least recent are forgotten: their next response begins another."""

    def __init__(self, most: int = _MOST_KEPT) -> None:
        self._most = most
        self._ends: OrderedDict[tuple[Owner, str], str] = OrderedDict()

    def of(self, owner: Owner, continuation: Continuation) -> str | None:
        """The thread of a response, which it is the end of from now on. None for whoever only looks, and sees none."""
        if continuation.conversation is not None:
            return f"conversation {continuation.conversation}"
        before = None if continuation.previous is None else (owner, continuation.previous)
        if continuation.response is None:
            return None if before is None else self._ends.get(before)
        end = (owner, continuation.response)
        thread = self._ends.pop(end, None)
        if thread is None and before is not None:
            thread = self._ends.pop(before, None)
        self._ends[end] = thread = thread or f"response {continuation.response}"
        if len(self._ends) > self._most:
            self._ends.popitem(last=False)
        return thread
