"""What one connection remembers and in which order its requests run. Decides only; `api.socket` performs.

A lane is a queue: one response at a time, first come first served; lanes run beside each other. Requests without a
`stream_id` share a lane of their own. What is said on one lane can be gone on from on any.

A response that is not stored lives as long as the connection that it was made on, and no longer than there is room:
the newest is always kept, the oldest goes first. When a request that went on from one fails, that one is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

from msgspec import Struct

from app.turn.errors import InvalidRequest, RateLimited
from app.turn.items import StoredItem


class Bounds(Struct, frozen=True, kw_only=True):
    """Of one connection: most lanes that are busy at once, most requests that wait on them, how many responses that
    are not stored are kept for later ones, how many bytes of them, and how much may wait to be said."""

    lanes: int = 16
    waiting: int = 64
    kept: int = 32
    kept_bytes: int = 67_108_864
    steers: int = 16


USUAL = Bounds()

_T = TypeVar("_T")


class Lanes(Generic[_T]):
    """The requests of a connection that run or wait. A lane exists while it has any."""

    def __init__(self, max_waiting_bytes: int, bounds: Bounds = USUAL) -> None:
        self._queues: dict[str | None, deque[tuple[_T, int]]] = {}
        self._max_lanes = bounds.lanes
        self._max_waiting = bounds.waiting
        self._max_bytes = max_waiting_bytes
        self._waiting = self._bytes = 0

    def __len__(self) -> int:
        return len(self._queues)

    def admit(self, lane: str | None, request: _T, size: int) -> bool:
        """Take a request of `size` bytes; whether it can run at once. If not, `done` will return it.

        Raises `InvalidRequest` for a lane too many, `RateLimited` when too much waits already.
        """
        queue = self._queues.get(lane)
        if queue is None:
            if len(self._queues) >= self._max_lanes:
                message = f"{self._max_lanes} lanes of this connection are busy; wait for one, or reuse it."
                raise InvalidRequest(message, param="stream_id", code="websocket_stream_limit_reached")
            self._queues[lane] = deque()
            return True
        if self._waiting >= self._max_waiting or self._bytes + size > self._max_bytes:
            raise RateLimited("Too many requests wait on this connection.", code="websocket_queue_full")
        queue.append((request, size))
        self._waiting += 1
        self._bytes += size
        return False

    def done(self, lane: str | None) -> _T | None:
        """The lane's request is through; the one that is next on it."""
        queue = self._queues[lane]
        if not queue:
            del self._queues[lane]
            return None
        request, size = queue.popleft()
        self._waiting -= 1
        self._bytes -= size
        return request


class Kept:
    """The contexts of this connection's responses that are not stored, newest last."""

    def __init__(self, bounds: Bounds = USUAL) -> None:
        self._contexts: OrderedDict[str, tuple[tuple[StoredItem, ...], int]] = OrderedDict()
        self._max_count = bounds.kept
        self._max_bytes = bounds.kept_bytes
        self._bytes = 0

    def keep(self, response_id: str, items: tuple[StoredItem, ...]) -> None:
        """Remember everything up to and including a response's output; alone too large, it is not kept."""
        size = sum(len(bytes(item.raw)) for item in items)
        if size > self._max_bytes:
            return
        self._contexts[response_id] = (items, size)
        self._bytes += size
        while len(self._contexts) > self._max_count or self._bytes > self._max_bytes:
            self.forget(next(iter(self._contexts)))

    def context(self, response_id: str | None) -> tuple[StoredItem, ...] | None:
        """What to go on from; None for a response that is not kept here."""
        found = None if response_id is None else self._contexts.get(response_id)
        return None if found is None else found[0]

    def forget(self, response_id: str | None) -> None:
        """Forget a response, if it is kept."""
        if response_id in self._contexts:
            self._bytes -= self._contexts.pop(response_id)[1]
