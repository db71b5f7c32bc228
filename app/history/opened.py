"""Contexts that were read lately, opened: the next turn of a conversation reads only what is new since.

What is stored does not change: the context of a response stays what it was for as long as the response is there, and
that it is there is asked of the database each time. Nothing is found here under other keys of the tenant's than those
it was opened with, and nothing is held for longer than the limit: a context that goes on from a held one lasts no
longer than that one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from msgspec import Struct

from app.responses.ports import StoredItem

# About what an item takes up beside its body.
_ITEM_BYTES = 200


class Opened(Struct, frozen=True):
    """The items of a context, which ends on that chain. `until` is when it is forgotten."""

    place: str
    keys: str
    chain_id: str
    items: tuple[StoredItem, ...]
    size: int
    until: float


class OpenedContexts:
    """Holds at most `limit` bytes, none of them for more than `seconds`. `monotonic` is in seconds.

    Contexts that share items are counted as if they did not.
    """

    def __init__(self, limit: int, seconds: float, monotonic: Callable[[], float]) -> None:
        self._limit = limit
        self._seconds = seconds
        self._monotonic = monotonic
        self._held: OrderedDict[tuple[str, str], Opened] = OrderedDict()
        # Those that were gone on from: few go back to where they were.
        self._left: dict[tuple[str, str], None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.size = 0

    def find(self, tenant: str, place: str, keys: str) -> Opened | None:
        """What is held of the place. `keys` names the tenant's keys."""
        found = self._held.get((tenant, place))
        if found is None:
            return None
        if found.keys != keys or found.until <= self._monotonic():
            self.forget(tenant, place)
            return None
        # The last to be used is the last to go.
        self._held.move_to_end((tenant, place))
        self._left.pop((tenant, place), None)
        return found

    def hold(
        self, tenant: str, place: str, keys: str, chain_id: str, items: Sequence[StoredItem], base: Opened | None
    ) -> None:
        """Hold a context, which begins with `base`."""
        known = 0 if base is None else len(base.items)
        size = sum(len(bytes(item.raw)) + _ITEM_BYTES for item in items[known:]) + (0 if base is None else base.size)
        self.forget(tenant, place)
        if base is not None and (tenant, base.place) in self._held:
            self._left[tenant, base.place] = None
        if size > self._limit:
            return
        while self._held and self.size + size > self._limit:
            self.forget(*next(iter(self._left or self._held)))
        until = self._monotonic() + self._seconds if base is None else base.until
        self._held[tenant, place] = Opened(place, keys, chain_id, tuple(items), size, until)
        self.size += size
        self._watch()

    def forget(self, tenant: str, place: str) -> None:
        """Forget what is held of the place, if anything is."""
        gone = self._held.pop((tenant, place), None)
        self._left.pop((tenant, place), None)
        self.size -= 0 if gone is None else gone.size

    def forget_all(self, tenant: str) -> None:
        """Forget everything of the tenant."""
        for key in [key for key in self._held if key[0] == tenant]:
            self.forget(*key)

    def _watch(self) -> None:
        if self._timer is None and self._held:
            wait = min(each.until for each in self._held.values()) - self._monotonic()
            self._timer = asyncio.get_running_loop().call_later(max(wait, 0.0), self._purge)

    def _purge(self) -> None:
        self._timer = None
        now = self._monotonic()
        for key in [key for key, each in self._held.items() if each.until <= now]:
            self.forget(*key)
        self._watch()
