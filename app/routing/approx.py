"""What a worker probably holds, guessed from what was sent to it: for engines that do not tell.

The guess forgets as an engine does: what is in use never, of the rest the least recently used first, and the tail of a
prompt before its head. Its size follows the truth: it shrinks when the engine found less cached than was predicted, and
grows back when it did not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from app.routing.index import BlockIndex

_SHRINK, _GROW = 0.9, 1.02


class RecentBlocks:
    """The blocks of one worker in the index, `capacity` of them, or as many as turns that are under way use."""

    def __init__(self, index: BlockIndex, slot: int, capacity: int) -> None:
        self._index = index
        self._slot = slot
        self._used: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._most = max(capacity, 1)
        self.capacity = self._most

    def __len__(self) -> int:
        """How many blocks are held."""
        return len(self._used) + len(self._idle)

    def use(self, keys: Sequence[int]) -> None:
        """A turn with these blocks was given to the worker: they stay until it is over."""
        used, idle = self._used, self._idle
        for key in keys:
            used[key] = used.get(key, 0) + 1
            idle.pop(key, None)
        self._index.store(self._slot, keys)
        self._evict()

    def leave(self, keys: Sequence[int], depth: int) -> None:
        """The turn with these blocks is over. It used those from `depth` on, and the others now."""
        used, idle = self._used, self._idle
        for place in range(len(keys) - 1, -1, -1):
            key = keys[place]
            left = used.get(key, 0) - (place >= depth)
            if left > 0:
                used[key] = left
            else:
                used.pop(key, None)
                idle[key] = None
                idle.move_to_end(key)
        self._index.store(self._slot, keys)
        self._evict()

    def discard(self, keys: Sequence[int]) -> None:
        """The turn that uses these blocks was not given to the worker after all."""
        used, gone = self._used, list[int]()
        for key in keys:
            left = used.get(key, 0) - 1
            if left > 0:
                used[key] = left
            elif used.pop(key, 0):
                gone.append(key)
        self._index.drop(self._slot, gone)

    def resize(self, capacity: int) -> None:
        """The worker's cache turned out to be for `capacity` blocks."""
        self._most = max(capacity, 1)
        self.capacity = self._most
        self._evict()

    def clear(self) -> None:
        """The worker holds nothing."""
        self._index.drop(self._slot, [*self._used, *self._idle])
        self._used.clear()
        self._idle.clear()

    def confirm(self, predicted: int, actual: int) -> None:
        """Of `predicted` tokens that were thought to be cached the engine found `actual`."""
        if actual < 0.8 * predicted:
            self.capacity = max(int(self.capacity * _SHRINK), self._most // 16, 1)
            self._evict()
        else:
            self.capacity = min(int(self.capacity * _GROW) + 1, self._most)

    def _evict(self) -> None:
        gone: list[int] = []
        while self._idle and len(self) > self.capacity:
            gone.append(self._idle.popitem(last=False)[0])
        self._index.drop(self._slot, gone)
