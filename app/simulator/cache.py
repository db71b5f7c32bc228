"""The prefix cache of an engine: blocks of tokens, each known by the hash of everything up to its end.

A block's key is the hash of its own tokens seeded with the key of the block before, so equal keys mean equal prefixes.
Only full blocks are kept. When room is needed the block unused for longest goes, and within one sequence the later
blocks before the earlier ones: what a prefix needs stays longer than what only its continuation needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from xxhash import xxh3_64_intdigest

from app.simulator.tokens import Tokens


class Change(Struct, frozen=True):
    """What a store did: keys of blocks that came, in the order of their sequence, and of blocks that went."""

    stored: tuple[int, ...] = ()
    removed: tuple[int, ...] = ()


class PrefixCache:
    """An LRU of at most `capacity` blocks of `block_size` tokens; a capacity of 0 keeps nothing."""

    def __init__(self, block_size: int, capacity: int) -> None:
        self.block_size = block_size
        self.capacity = capacity
        # Oldest first: dicts keep their order, and a key that is used again is put at the end.
        self._blocks: dict[int, None] = {}

    def __len__(self) -> int:
        """How many blocks are held."""
        return len(self._blocks)

    def keys(self, tokens: Tokens) -> list[int]:
        """The keys of the full blocks of `tokens`."""
        size = self.block_size
        view = memoryview(tokens)
        keys: list[int] = []
        key = 0
        for end in range(size, len(tokens) + 1, size):
            key = xxh3_64_intdigest(view[end - size : end], key)
            keys.append(key)
        return keys

    def match(self, keys: Sequence[int]) -> int:
        """How many of the first blocks are held. Asking is not using."""
        held = 0
        for key in keys:
            if key not in self._blocks:
                break
            held += 1
        return held

    def store(self, keys: Sequence[int]) -> Change:
        """Hold a sequence, or as much of its beginning as there is room for. Its blocks count as used now."""
        kept = keys[: self.capacity]
        missing = tuple(key for key in kept if key not in self._blocks)
        self._use(kept)
        over = len(self._blocks) - self.capacity
        removed = tuple(key for key, _ in zip(self._blocks, range(over), strict=False))
        for key in removed:
            del self._blocks[key]
        return Change(missing, removed)

    def _use(self, keys: Sequence[int]) -> None:
        blocks = self._blocks
        for key in reversed(keys):
            blocks.pop(key, None)
            blocks[key] = None
