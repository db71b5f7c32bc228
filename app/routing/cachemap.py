"""Which worker holds how much of a prompt: the block index, and per worker where its knowledge comes from.

A worker whose engine tells what it holds is known exactly, and what it was sent is only claimed until it tells. Of any
other worker we remember what it was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf

from app.routing.approx import GaveUp, RecentBlocks
from app.routing.index import BlockIndex
from app.routing.regrets import Regrets
from app.routing.speculation import Claims


class Exact:
    """A worker that tells. `owned` are its blocks; its claims are what it was sent and has not told of."""

    def __init__(self, index: BlockIndex, slot: int, gave_up: GaveUp) -> None:
        self._index = index
        self._slot = slot
        self._gave_up = gave_up
        self._owned: set[int] = set()
        self._most = 0
        self._claims = Claims(index, slot, self._owned.__contains__)
        # What is claimed for each turn that is under way.
        self._sent: dict[int, Sequence[int]] = {}

    def __len__(self) -> int:
        return len(self._owned)

    @property
    def capacity(self) -> float:
        """The most blocks it held when it gave some up for others; infinite before it did."""
        return self._most or inf

    def sent(self, turn: int, keys: Sequence[int], depth: int, *, waits: bool = False) -> None:
        """The turn of that number was given to the worker, known to hold its first `depth` blocks."""
        del waits
        self._sent[turn] = new = keys[depth:]
        self._claims.claim(new)

    def begun(self, turn: int) -> None:
        """The turn that waited was sent. The engine tells what it gives up for it."""

    def ended(self, turn: int, keys: Sequence[int]) -> None:
        """The turn is over. The engine tells what it keeps."""
        del keys
        self.withdrawn(turn)

    def withdrawn(self, turn: int) -> None:
        """The turn was not sent after all."""
        self._claims.release(self._sent.pop(turn, ()))

    def stored(self, keys: Sequence[int]) -> None:
        """The engine holds these blocks."""
        self._owned.update(keys)
        self._index.store(self._slot, keys)

    def evicted(self, keys: Sequence[int]) -> None:
        """The engine gave these blocks up for others."""
        if keys:
            self._most = max(self._most, len(self._owned))
        self._gave_up(keys, self._most)
        self.lost(keys)

    def lost(self, keys: Sequence[int]) -> None:
        """The engine does not hold these blocks any more."""
        self._owned.difference_update(keys)
        self._index.drop(self._slot, [key for key in keys if key not in self._claims])

    def clear(self) -> None:
        """The engine holds nothing, and forgot what it was sent."""
        self._claims.clear()
        self._sent.clear()
        self._index.drop(self._slot, self._owned)
        self._owned.clear()
        self._most = 0


class CacheMap:
    """The blocks of all workers. `slots` are the workers' by id. `regrets` says what the workers gave up too early.

    `worker_blocks` is how many blocks a worker that does not tell is thought to hold.
    """

    def __init__(self, *, capacity: int, worker_blocks: int) -> None:
        self.index = BlockIndex(capacity)
        self.regrets = Regrets()
        self._worker_blocks = worker_blocks
        self.slots: dict[str, int] = {}
        self._free: list[int] = []
        self._views: dict[str, Exact | RecentBlocks] = {}
        self._unsettled: Exact | RecentBlocks | None = None

    def slot(self, worker_id: str) -> int:
        """The worker's slot; a worker seen for the first time is one that does not tell."""
        slot = self.slots.get(worker_id)
        if slot is None:
            slot = self.slots[worker_id] = self._free.pop() if self._free else len(self.slots)
            self.regrets.begin(slot)
            self._views[worker_id] = self._guess(slot)
        return slot

    def view(self, worker_id: str) -> Exact | RecentBlocks:
        """What is known of the worker."""
        view = self._views.get(worker_id)
        if view is None:
            self.slot(worker_id)
            view = self._views[worker_id]
        return view

    def sent(self, worker_id: str, turn: int, keys: Sequence[int], depth: int, *, waits: bool = False) -> None:
        """The turn of that number was given to the worker, known to hold its first `depth` blocks."""
        self._unsettled = view = self.view(worker_id)
        view.sent(turn, keys, depth, waits=waits)

    def settle(self) -> None:
        """Forget what the last turn displaces where it was sent: before anybody asks again, but not while it waits."""
        if isinstance(self._unsettled, RecentBlocks):
            self._unsettled.settle()
        self._unsettled = None

    def depths(self, keys: Sequence[int], likely: int = 0) -> dict[int, int]:
        """Blocks of the prompt held, by slot. See `BlockIndex.depths`."""
        self.settle()
        return self.index.depths(keys, likely)

    def tells(self, worker_id: str) -> Exact:
        """From now on the engine tells what it holds; what was guessed is forgotten."""
        view = self.view(worker_id)
        if isinstance(view, Exact):
            return view
        view.clear()
        slot = self.slots[worker_id]
        exact = self._views[worker_id] = Exact(self.index, slot, partial(self.regrets.gave_up, slot))
        return exact

    def silent(self, worker_id: str) -> None:
        """The engine tells no more: go on guessing, from nothing."""
        view = self.view(worker_id)
        if isinstance(view, Exact):
            view.clear()
            self._views[worker_id] = self._guess(self.slots[worker_id])

    def forget(self, worker_id: str) -> None:
        """The worker is gone; its slot is given to another one later."""
        view = self._views.pop(worker_id, None)
        if view is not None:
            view.clear()
            self._free.append(self.slots.pop(worker_id))

    def _guess(self, slot: int) -> RecentBlocks:
        return RecentBlocks(self.index, slot, self._worker_blocks, partial(self.regrets.gave_up, slot))
