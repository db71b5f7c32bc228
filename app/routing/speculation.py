"""Blocks that a worker will hold as soon as it has read what was sent to it: claims, until the engine speaks.

Without them, a burst of turns with the same prefix would be scattered before the first one's events arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.routing.index import BlockIndex


class Claims:
    """The claimed blocks of one worker. `owned` tells which blocks the engine is known to hold."""

    def __init__(self, index: BlockIndex, slot: int, owned: Callable[[int], bool]) -> None:
        self._index = index
        self._slot = slot
        self._owned = owned
        self._counts: dict[int, int] = {}

    def __contains__(self, key: int) -> bool:
        return key in self._counts

    def claim(self, keys: Sequence[int]) -> None:
        """A turn with these blocks was given to the worker."""
        counts = self._counts
        for key in keys:
            counts[key] = counts.get(key, 0) + 1
        self._index.store(self._slot, keys)

    def release(self, keys: Sequence[int]) -> None:
        """The turn is past reading: by now the engine has told what it holds."""
        counts, gone = self._counts, list[int]()
        for key in keys:
            left = counts.get(key, 0) - 1
            if left > 0:
                counts[key] = left
            elif counts.pop(key, 0) and not self._owned(key):
                gone.append(key)
        self._index.drop(self._slot, gone)

    def clear(self) -> None:
        """Nothing is claimed."""
        self._index.drop(self._slot, [key for key in self._counts if not self._owned(key)])
        self._counts.clear()
