"""What a worker probably holds, guessed from what was sent to it: for engines that do not tell.

The guess forgets as an engine does: the least recently used first, and the tail of a prompt before its head. Its size
follows the truth: it shrinks when the engine found less cached than was predicted, and grows back when it did not.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from app.routing.index import BlockIndex

_SHRINK, _GROW = 0.9, 1.02


class RecentBlocks:
    """The blocks of one worker in the index, at most `capacity` of them."""

    def __init__(self, index: BlockIndex, slot: int, capacity: int) -> None:
        self._index = index
        self._slot = slot
        self._keys: OrderedDict[int, None] = OrderedDict()
        self._most = max(capacity, 1)
        self.capacity = self._most

    def __len__(self) -> int:
        """How many blocks are held."""
        return len(self._keys)

    def add(self, keys: Sequence[int]) -> None:
        """The worker was given a prompt with these blocks, which it was not thought to hold; now it is."""
        known, new = self._keys, keys[: self.capacity]
        for key in reversed(new):
            known[key] = None
        self._index.store(self._slot, new)
        self._evict()

    def touch(self, keys: Sequence[int]) -> None:
        """The worker used these blocks just now: all of a prompt's, those it was thought to hold wrongly as well."""
        known, used = self._keys, keys[: self.capacity]
        move = known.move_to_end
        for key in reversed(used):
            known[key] = None
            move(key)
        self._index.store(self._slot, used)
        self._evict()

    def discard(self, keys: Sequence[int]) -> None:
        """The worker was not given the prompt with these blocks after all.

        Another turn that has them too says so when it is over.
        """
        for key in keys:
            self._keys.pop(key, None)
        self._index.drop(self._slot, keys)

    def resize(self, capacity: int) -> None:
        """The worker's cache turned out to be for `capacity` blocks."""
        self._most = max(capacity, 1)
        self.capacity = self._most
        self._evict()

    def clear(self) -> None:
        """The worker holds nothing."""
        self._index.drop(self._slot, self._keys)
        self._keys.clear()

    def confirm(self, predicted: int, actual: int) -> None:
        """Of `predicted` tokens that were thought to be cached the engine found `actual`."""
        if actual < 0.8 * predicted:
            self.capacity = max(int(self.capacity * _SHRINK), self._most // 16, 1)
            self._evict()
        else:
            self.capacity = min(int(self.capacity * _GROW) + 1, self._most)

    def _evict(self) -> None:
        gone: list[int] = []
        while len(self._keys) > self.capacity:
            gone.append(self._keys.popitem(last=False)[0])
        self._index.drop(self._slot, gone)
