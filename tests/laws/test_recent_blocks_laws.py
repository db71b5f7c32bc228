"""What is remembered of a worker by stretches is what would be remembered block by block."""

from __future__ import annotations

from collections import Counter

from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.routing.approx import RecentBlocks
from app.routing.index import BlockIndex

# A prompt is a path in a tree with three branches everywhere; few of them, so that they often share a part.
PATHS = st.lists(st.integers(0, 2), max_size=8).map(tuple)


def keys_of(path: tuple[int, ...]) -> list[int]:
    """A key names all of the path up to its block."""
    return [int("1" + "".join(map(str, path[: end + 1]))) for end in range(len(path))]


class BlockByBlock:
    """The slow one: who uses each block, and when each was used last."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.users, self.read, self.used = Counter(), set(), {}
        self.clock = 0
        self.awaited = Counter()

    def use(self, turn, keys, waits):
        if waits:
            self.awaited[turn] = sum(key not in self.used for key in keys)
        for key in keys:
            self.users[key] += 1
            self.used.setdefault(key, 0)
        self.forget()

    def begun(self, turn):
        del self.awaited[turn]
        self.forget()

    def leave(self, keys):
        self.read.update(keys)
        self.release(keys)
        self.forget()

    def discard(self, turn, keys):
        del self.awaited[turn]
        self.release(keys)
        for key in keys:
            if not self.users[key] and key not in self.read:
                del self.used[key]
        self.forget()

    def release(self, keys):
        # The tail of a prompt goes before its head.
        for key in reversed(keys):
            self.users[key] -= 1
            self.clock += 1
            self.used[key] = self.clock

    def forget(self):
        idle = sorted((at, key) for key, at in self.used.items() if not self.users[key])
        for _, key in idle[: max(len(self.used) - self.awaited.total() - self.capacity, 0)]:
            del self.used[key]
            self.read.discard(key)


class Twins(RuleBasedStateMachine):
    """Both are told the same."""

    def __init__(self):
        super().__init__()
        self.index = BlockIndex(10_000)
        self.recent = RecentBlocks(self.index, 3, 12)
        self.slow = BlockByBlock(12)
        self.turns = {}
        self.waiting = set()
        self.number = 0
        self.seen = set()

    @rule(path=PATHS, waits=st.booleans())
    def use(self, path, waits):
        keys = keys_of(path)
        self.number += 1
        self.turns[self.number] = keys
        self.seen.update(keys)
        shown = self.index.depths(keys).get(3, 0)
        event(f"{'nothing' if not shown else 'all' if shown == len(keys) else 'a part'} of the prompt is held")
        before = len(self.recent)
        self.recent.sent(self.number, keys, shown, waits=waits)
        if waits:
            self.waiting.add(self.number)
        # The turn waits for this: nothing is forgotten yet.
        assert len(self.recent) == before + len(keys) - shown
        self.recent.settle()
        self.slow.use(self.number, keys, waits)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def begin(self, data):
        turn = data.draw(st.sampled_from(sorted(self.waiting)))
        self.waiting.remove(turn)
        self.recent.begun(turn)
        self.slow.begun(turn)

    @precondition(lambda self: self.turns.keys() - self.waiting)
    @rule(data=st.data())
    def leave(self, data):
        turn = data.draw(st.sampled_from(sorted(self.turns.keys() - self.waiting)))
        keys = self.turns.pop(turn)
        self.recent.ended(turn, keys)
        self.slow.leave(keys)

    @rule(path=PATHS)
    def leave_what_nobody_knew_of(self, path):
        keys = keys_of(path)
        self.seen.update(keys)
        self.recent.ended(0, keys)
        self.slow.use(0, keys, waits=False)
        self.slow.leave(keys)

    @precondition(lambda self: self.turns)
    @rule(data=st.data())
    def discard(self, data):
        turn = data.draw(st.sampled_from(sorted(self.turns)))
        self.waiting.discard(turn)
        self.recent.withdrawn(turn)
        self.slow.discard(turn, self.turns.pop(turn))

    @rule(there=st.booleans())
    def confirm(self, there):
        before = self.recent.capacity
        self.recent.confirm(100, 100 if there else 0)
        assert self.recent.capacity <= 12 if there else self.recent.capacity < before or before == 1
        self.slow.capacity = self.recent.capacity
        self.slow.forget()

    @rule()
    def clear(self):
        self.recent.clear()
        self.slow = BlockByBlock(self.slow.capacity)
        self.turns.clear()
        self.waiting.clear()

    @invariant()
    def they_hold_the_same(self):
        held = {key for key in self.seen if self.index.holds(3, key)}
        assert held == set(self.slow.used)
        assert len(self.recent) == len(held) == len(self.index)

    @invariant()
    def what_is_in_use_is_held_and_more_only_as_far_as_there_is_room(self):
        in_use = {key for keys in self.turns.values() for key in keys}
        assert all(self.index.holds(3, key) for key in in_use)
        awaited = {key for turn in self.waiting for key in self.turns[turn]}
        assert len(self.recent) <= max(self.recent.capacity + len(awaited), len(in_use))


TestTwins = Twins.TestCase
