"""What a worker probably holds, guessed from what was sent to it: for engines that do not tell.

The guess forgets as an engine does: what is in use never, of the rest the least recently used first, and the tail of a
prompt before its head. Its size follows the truth: it shrinks when the engine found less cached than was predicted, and
grows back when it did not.

Prompts that begin alike share what they have in common, so the blocks of a worker are a tree, and it is kept in
stretches: blocks that all turns use or none. A turn counts on its few stretches, not on its thousand blocks.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from app.routing.index import BlockIndex

_SHRINK, _GROW = 0.98, 1.004

# Is told of blocks that were given up for others, and of how many the worker can hold.
GaveUp: TypeAlias = Callable[[Sequence[int], float], None]


class Stretch:
    """Blocks in a row. `below` are the stretches that go on from its end, by their first key.

    So many `turns` use it, and with it all that are `above`. It is `read` once such a turn is over.
    """

    __slots__ = ("above", "below", "keys", "read", "turns")

    def __init__(self, above: Stretch | None, keys: array[int]) -> None:
        self.above = above
        self.below: dict[int, Stretch] = {}
        self.keys = keys
        self.turns = 0
        self.read = False
        if above is not None:
            above.below[keys[0]] = self

    def hang(self, above: Stretch) -> None:
        """It goes on from the end of `above`."""
        self.above = above
        above.below[self.keys[0]] = self

    def upwards(self) -> Iterator[Stretch]:
        """This one and all above it, without the root."""
        stretch = self
        while stretch.above is not None:
            above = stretch.above
            yield stretch
            stretch = above


class RecentBlocks:
    """The blocks of one worker in the index, `capacity` of them, or as many as turns that are under way use.

    Turns go by numbers, of which no two that are under way are the same.
    """

    def __init__(
        self, index: BlockIndex, slot: int, capacity: int, gave_up: GaveUp = lambda _keys, _room: None
    ) -> None:
        """`gave_up` is told of the blocks that are forgotten because there is no room for them."""
        self._gave_up = gave_up
        self._index = index
        self._slot = slot
        self._root = Stretch(None, array("Q"))
        # The deepest stretch of each turn that is under way.
        self._ends: dict[int, Stretch] = {}
        # Stretches as they were left by the last turn that used them; one that goes on from another comes before it.
        self._left: OrderedDict[Stretch, None] = OrderedDict()
        self._held = 0
        # How many of these came with turns that wait, and how many with each.
        self._awaited = 0
        self._waiting: dict[int, int] = {}
        self._most = max(capacity, 1)
        self.capacity = self._most

    def __len__(self) -> int:
        """How many blocks are held."""
        return self._held

    def sent(self, turn: int, keys: Sequence[int], depth: int = 0, *, waits: bool = False) -> None:
        """The turn with these blocks was given to the worker: they stay until it is over.

        The index knew of the first `depth` of them. What they displace goes when it is `settle`d; where the turn
        `waits` to be sent, not before it has `begun`, for until then the worker holds it still.
        """
        end, held = self._reach(keys)
        if held < len(keys):
            end = Stretch(end, array("Q", keys[held:]))
            self._held += len(end.keys)
            if waits:
                self._waiting[turn] = len(end.keys)
                self._awaited += len(end.keys)
        self._ends[turn] = end
        while end.above is not None:
            end.turns += 1
            end = end.above
        self._index.store(self._slot, keys[depth:])

    def begun(self, turn: int) -> None:
        """The turn that waited was sent."""
        self._awaited -= self._waiting.pop(turn, 0)
        self.settle()

    def ended(self, turn: int, keys: Sequence[int]) -> None:
        """The turn with these blocks is over; it leaves them in the cache, and used them just now."""
        if turn not in self._ends:
            self.sent(turn, keys)
        last = None
        for stretch in self._ends.pop(turn).upwards():
            stretch.turns -= 1
            stretch.read = True
            if stretch.turns:
                continue
            if last is not None and len(stretch.below) == 1:
                # Both were used last by this turn, and there is nothing else below: one stretch from now on.
                assert stretch.above is not None
                last.keys = stretch.keys + last.keys
                last.hang(stretch.above)
                self._left.pop(stretch, None)
            else:
                self._rest(stretch)
                last = stretch
        self.settle()

    def withdrawn(self, turn: int) -> None:
        """The turn was not given to the worker after all."""
        self._awaited -= self._waiting.pop(turn, 0)
        for stretch in self._ends.pop(turn, self._root).upwards():
            stretch.turns -= 1
            if stretch.turns:
                continue
            if stretch.read:
                self._rest(stretch)
            else:
                self._forget(stretch, 0)
        self.settle()

    def settle(self) -> None:
        """Forget what there is no room for."""
        while (over := self._held - self._awaited - self.capacity) > 0 and self._left:
            oldest = next(iter(self._left))
            if oldest.turns:
                # It comes back when they are over.
                del self._left[oldest]
            else:
                left = max(len(oldest.keys) - over, 0)
                self._gave_up(oldest.keys[left:], self.capacity)
                self._forget(oldest, left)

    def clear(self) -> None:
        """The worker holds nothing (any more)."""
        rest = list(self._root.below.values())
        while rest:
            stretch = rest.pop()
            rest.extend(stretch.below.values())
            self._index.drop(self._slot, stretch.keys)
        self._root.below.clear()
        self._ends.clear()
        self._left.clear()
        self._waiting.clear()
        self._held = self._awaited = 0

    def confirm(self, predicted: int, actual: int) -> None:
        """Of `predicted` tokens that were thought to be cached the engine found `actual`."""
        if actual < 0.8 * predicted:
            self.capacity = max(int(self.capacity * _SHRINK), self._most // 16, 1)
            self.settle()
        else:
            self.capacity = min(int(self.capacity * _GROW) + 1, self._most)

    def _reach(self, keys: Sequence[int]) -> tuple[Stretch, int]:
        """The stretch that ends where the held part of the prompt ends, and how many blocks that part has."""
        stretch, depth = self._root, 0
        while depth < len(keys) and (below := stretch.below.get(keys[depth])) is not None:
            shared = _shared(below.keys, keys, depth)
            stretch = below if shared == len(below.keys) else self._split(below, shared)
            depth += shared
        return stretch, depth

    def _split(self, stretch: Stretch, at: int) -> Stretch:
        """A stretch of its own for the first `at` blocks. It is not among the idle ones, for it is about to be used."""
        assert stretch.above is not None
        head = Stretch(stretch.above, stretch.keys[:at])
        head.turns, head.read = stretch.turns, stretch.read
        stretch.keys = stretch.keys[at:]
        stretch.hang(head)
        return head

    def _rest(self, stretch: Stretch) -> None:
        self._left[stretch] = None
        self._left.move_to_end(stretch)

    def _forget(self, stretch: Stretch, left: int) -> None:
        """Keep the first `left` blocks of a stretch nobody goes on from."""
        assert stretch.above is not None
        gone = stretch.keys[left:]
        if not left:
            del stretch.above.below[gone[0]]
            self._left.pop(stretch, None)
        del stretch.keys[left:]
        self._held -= len(gone)
        self._index.drop(self._slot, gone)


def _shared(ours: Sequence[int], theirs: Sequence[int], start: int) -> int:
    """How many of `ours` are `theirs` from `start` on. The first one is; behind one that is not, none is."""
    most = min(len(ours), len(theirs) - start)
    if ours[most - 1] == theirs[start + most - 1]:
        return most
    return bisect_left(range(most), True, key=lambda place: ours[place] != theirs[start + place])
