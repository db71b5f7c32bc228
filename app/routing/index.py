"""Which worker holds which block of which prompt: a dict from chain hash to a bitmask of workers.

A prompt is a row of blocks, and the key of a block is a hash of the block and of the key before it. So a key names a
whole prefix, and no tree is needed: storing, removing and looking up a block are one dict operation each, an engine's
events map to them one to one, and there are no nodes to split or to balance. What belongs apart (models, salts) starts
its chains at different roots.

A worker that holds a block holds the blocks before it, for engines evict from the tail. So along a prompt the masks
only shrink, and how far each worker's match goes is found by galloping: look twice as far each time, and bisect where
somebody drops out. A lookup costs some tens of dict operations whatever the length of the prompt. Where a worker has a
hole in its chain the answer may count the hole as held; the worker then computes a little more than was predicted.

Workers are slots: small numbers that the caller gives out and takes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class BlockIndex:
    """Keys are 64-bit numbers. At most `capacity` different blocks are kept; more are not stored, but counted."""

    def __init__(self, capacity: int) -> None:
        self._masks: dict[int, int] = {}
        self._capacity = capacity
        self.refused = 0

    def __len__(self) -> int:
        """How many different blocks are known."""
        return len(self._masks)

    def store(self, slot: int, keys: Iterable[int]) -> None:
        """The worker holds these blocks."""
        masks, bit, room = self._masks, 1 << slot, self._capacity
        for key in keys:
            mask = masks.get(key)
            if mask is not None:
                masks[key] = mask | bit
            elif len(masks) < room:
                masks[key] = bit
            else:
                self.refused += 1

    def drop(self, slot: int, keys: Iterable[int]) -> None:
        """The worker does not hold these blocks (any more)."""
        masks, bit = self._masks, 1 << slot
        for key in keys:
            mask = masks.get(key, 0)
            if mask & bit:
                if mask == bit:
                    del masks[key]
                else:
                    masks[key] = mask ^ bit

    def holds(self, slot: int, key: int) -> bool:
        """Whether the worker holds the block."""
        return bool(self._masks.get(key, 0) >> slot & 1)

    def sweep(self, slot: int) -> None:
        """Forget the worker by looking at every block; for when nobody remembers which ones it held."""
        bit = 1 << slot
        self.drop(slot, [key for key, mask in self._masks.items() if mask & bit])

    def depths(self, keys: Sequence[int], likely: int = 0) -> dict[int, int]:
        """How many leading blocks of the prompt each worker holds, by slot; workers that hold none are left out.

        `likely` is where most matches end, if that is known: it is looked at first.
        """
        found: dict[int, int] = {}
        if not keys:
            return found
        get = self._masks.get
        alive, depth, stride, end = get(keys[0], 0), 1, max(likely - 1, 1), len(keys)
        while alive and depth < end:
            # Everybody in `alive` reaches `depth`. Does everybody reach `probe`?
            probe = min(depth + stride, end)
            left = alive & get(keys[probe - 1], 0)
            if left == alive:
                depth, stride = probe, 1 if probe == likely else stride * 2
                continue
            while probe - depth > 1:
                middle = (depth + probe) // 2
                here = alive & get(keys[middle - 1], 0)
                if here == alive:
                    depth = middle
                else:
                    probe, left = middle, here
            _note(found, alive ^ left, depth)
            alive, depth, stride = left, probe, 1
        _note(found, alive, depth)
        return found


def _note(found: dict[int, int], mask: int, depth: int) -> None:
    while mask:
        lowest = mask & -mask
        found[lowest.bit_length() - 1] = depth
        mask ^= lowest
