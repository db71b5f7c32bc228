"""An engine's blocks as the router's keys.

Engines name blocks by hashes of their own making, so each block that is stored is entered with where its chain is:
found by its parent's entry, or at the beginning. Its tokens then say what the router calls it. A block whose parent
nobody told of cannot be named, and is counted and left out; so is what is not in the engine's fast memory.

Replicas of one worker (data-parallel ranks) have a cache each; the worker holds what any of them does. Where the same
blocks are kept by several groups of layers, those are followed of which something was entered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from app.routing.kv_events.words import Batch, BlockHash, Cleared, Removed, Stored, Undecodable
from app.routing.tokens import ROOT, At, as_bytes, further, salted

_FAST = frozenset(("GPU", "gpu", "device", "HBM"))


class Entry(Struct, frozen=True, gc=False):
    """A block: where its chain is at its end, and the keys that became whole in it."""

    at: At
    keys: tuple[int, ...] = ()


class Change(Struct, frozen=True, gc=False):
    """What a batch means: keys that came, and keys that went, in this order. `cleared`: everything went first.

    `evicted`: they went because others needed their room.
    """

    stored: list[int]
    removed: list[int]
    cleared: bool = False
    evicted: bool = False


class Book:
    """The blocks of one worker."""

    def __init__(self) -> None:
        self._ranks: dict[int, dict[BlockHash, Entry]] = {}
        self._held: Counter[int] = Counter()
        self._groups: set[int | None] = {None}
        self.orphans = 0

    def __len__(self) -> int:
        """How many blocks are entered, in all ranks."""
        return sum(map(len, self._ranks.values()))

    def held(self) -> list[int]:
        """All keys that are held."""
        return list(self._held)

    def read(self, batch: Batch) -> list[Change]:
        """What a batch changes. Raises `Undecodable` for tokens that are none; then the book is void."""
        changes: list[Change] = []
        for told in batch.told:
            match told:
                case Stored():
                    if told.medium in _FAST:
                        self._groups.add(told.group)
                        changes.append(Change(self._gained(self._store(batch.rank, told)), []))
                case Removed():
                    if told.medium in _FAST and told.group in self._groups:
                        gone = self._lost(self._remove(batch.rank, told))
                        changes.append(Change([], gone, evicted=True))
                case Cleared():
                    changes.append(self.clear(batch.rank))
        return changes

    def clear(self, rank: int) -> Change:
        """The rank holds nothing."""
        entries = self._ranks.pop(rank, {})
        gone = self._lost(key for entry in entries.values() for key in entry.keys)
        return Change([], gone, cleared=not self._ranks)

    def _store(self, rank: int, told: Stored) -> list[int]:
        entries = self._ranks.setdefault(rank, {})
        parent = None if told.parent is None else entries.get(told.parent)
        if parent is None and told.parent is not None:
            self.orphans += len(told.hashes)
            return []
        at = salted(ROOT, told.adapter) if parent is None else parent.at
        try:
            data, width = as_bytes(told.tokens), told.size * 4
        except (OverflowError, TypeError) as error:
            raise Undecodable(f"not the ids of tokens: {error}") from error
        new: list[int] = []
        for number, name in enumerate(told.hashes):
            keys: list[int] = []
            if told.salts:
                at = salted(at, told.salts[number])
            at = further(at, data[number * width : (number + 1) * width], keys)
            # A block that is told of twice is held once.
            if name not in entries:
                new += keys
            entries[name] = Entry(at, tuple(keys))
        return new

    def _remove(self, rank: int, told: Removed) -> list[int]:
        entries = self._ranks.get(rank, {})
        gone = (entries.pop(name, None) for name in told.hashes)
        return [key for entry in gone if entry is not None for key in entry.keys]

    def _gained(self, keys: Iterable[int]) -> list[int]:
        new: list[int] = []
        for key in keys:
            self._held[key] += 1
            if self._held[key] == 1:
                new.append(key)
        return new

    def _lost(self, keys: Iterable[int]) -> list[int]:
        gone: list[int] = []
        for key in keys:
            self._held[key] -= 1
            if self._held[key] <= 0:
                del self._held[key]
                gone.append(key)
        return gone
