"""Places turns: who takes a turn, when it is sent, and what is learned from how it went. No I/O, no clock of its own.

The order of a turn's life: `place` gives it to a worker, and either it is sent at once or it is held until `release`
sends it; `spoke` when the first event comes; `ended` when it is over. A turn that is held and no longer wanted is
`withdrawn`. Of a long prompt a part is sent first: once it was `part_read` the turn is held again, for the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from msgspec import Struct

from app.routing.approx import RecentBlocks
from app.routing.board import Board
from app.routing.cachemap import CacheMap
from app.routing.engine_load import EngineLoad
from app.routing.loads import Load, PartRead, Placement
from app.routing.policies import Ask, Field, Policy
from app.routing.policies.cache_aware import later
from app.routing.rates import Rate, quickest

# What `due` foretells, `release` must find: their sums are rounded differently.
_ROUNDING_SECS = 1e-6
# Others' turns are taken to be like ours, which is the mean of about the last twenty.
_TURN_SECS, _TURN_WEIGHT = 0.3, 0.05
# A worker that was seen to read less often than this is taken to be like the others. Else, while rates are learned,
# those that were seen first would look much quicker than those that have nothing to do yet, and be given everything.
_ENOUGH = 8
# What takes less than so many parts is read as one: the rest would hardly be worth another request.
_MOST_PARTS = 1.5
# Where less of a worker's memory is left, a turn that lets others pass loses what was read of it; and where all workers
# are full that never ends, for who passes is written meanwhile and holds memory too.
_MOST_MEMORY = 0.7


class Tuning(Struct, frozen=True, kw_only=True):
    """The numbers of a placer.

    A turn is held at the gateway while its worker has more than `hold_secs` of reading to do; of the held ones the
    shortest goes first, less `aging` seconds for each second it waited. A prompt that takes much longer than
    `part_secs` to read is read in parts of as much; 0: never.
    """

    hold_secs: float = 0.4
    aging: float = 0.3
    part_secs: float = 2.0


class Prompt(Struct, frozen=True, gc=False):
    """What a placement needs to know of a prompt: the keys of its whole blocks, its and a block's length in tokens.

    `size` is the prompt's length in whatever it was read as, where that is not tokens. The first `known` keys are those
    of a prompt that was read before: whoever holds anything of it is likely to hold these, and nothing after them.
    `short` is what a prompt without a whole block is told from others by.
    """

    keys: Sequence[int] = ()
    tokens: int = 0
    block_tokens: float = 64.0
    size: int = 0
    known: int = 0
    short: int = 0


class Placer:
    """Decides for a set of workers. All times are in seconds on the caller's clock."""

    def __init__(self, caches: CacheMap, tuning: Tuning) -> None:
        self.caches = caches
        self._tuning = tuning
        self._board = Board()
        self._loads: dict[str, Load] = {}
        self._expire_at = inf
        self._rate = Rate()
        self._turn_secs = _TURN_SECS

    def load(self, worker_id: str) -> Load:
        """The worker's load."""
        load = self._loads.get(worker_id)
        if load is None:
            row = self.caches.slot(worker_id)
            load = self._loads[worker_id] = Load(self._board, row, self._rate, self._tuning.aging)
        return load

    def place(
        self, policy: Policy, ask: Ask, prompt: Prompt, worker_ids: Sequence[str], now: float, *, hold: bool = True
    ) -> Placement:
        """Give the turn to one of the workers. It is sent unless `hold` and the worker has enough to read."""
        field = self._field(prompt, worker_ids, now)
        chosen = policy(ask, field)
        worker_id, cached = worker_ids[chosen], field.cached[chosen]
        placement = Placement(worker_id, ask.serial, prompt.keys, prompt.tokens, now)
        placement.choice, placement.block = worker_ids, prompt.block_tokens
        if ask.since is not None:
            placement.arrived, placement.moved = ask.since, True
        placement.cached = placement.predicted = cached
        placement.secs = field.rates[chosen].secs(prompt.tokens - cached, cached)
        placement.whole = not hold or not prompt.keys
        load = placement.load = self.load(worker_id)
        # With nobody else to send to there is still an order to keep, so holding pays for a single worker too.
        waits = hold and (len(load.held) > 0 or load.backlog(now) > self._tuning.hold_secs)
        if prompt.keys:
            self.caches.sent(worker_id, ask.serial, prompt.keys, placement.depth, waits=waits)
        if waits:
            load.hold(placement)
        else:
            self._send(load, placement, now)
        return placement

    def knows(self, placement: Placement) -> bool:
        """Whether the worker is still the one that the turn was given to: it may have been removed, and come back."""
        return self._loads.get(placement.worker_id) is placement.load

    def release(self, worker_id: str, now: float) -> list[Placement]:
        """Send held turns as far as the worker has room; returns those that were sent."""
        load, sent = self.load(worker_id), list[Placement]()
        while len(load.held) and load.backlog(now) <= self._tuning.hold_secs + _ROUNDING_SECS:
            placement = load.take()
            assert placement is not None
            self.caches.view(worker_id).begun(placement.serial)
            self._send(load, placement, now)
            sent.append(placement)
        return sent

    def due(self, worker_id: str, now: float) -> float | None:
        """When `release` should be called next, if nothing happens until then; None when that would not help."""
        load = self.load(worker_id)
        at = load.room_at(self._tuning.hold_secs, now) if len(load.held) else inf
        return at if at < inf else None

    def spoke(self, placement: Placement, now: float) -> None:
        """The first event of the turn came."""
        if placement.sent_at is None or placement.spoken:
            return
        load = self._speak(placement, now)
        # Behind a part somebody else may have read more of the same prompt meanwhile.
        if placement.idle and not placement.begun:
            new = placement.tokens - placement.cached
            self._observed(load, new, placement.cached, now - placement.sent_at)

    def part_read(self, placement: Placement, read: PartRead, now: float) -> None:
        """The worker has read a part of the prompt; what is left is held.

        Where memory is so short that the part before was not kept, the rest is read at once.
        """
        assert placement.sent_at is not None
        load = self._speak(placement, now)
        if placement.idle and read.new > 0:
            self._observed(load, read.new, read.found, now - placement.sent_at)
        load.ended(placement.serial, now)
        placement.cached = max(read.upto, placement.cached)
        placement.secs = load.reckoned.secs(placement.tokens - placement.cached, placement.cached)
        placement.begun = placement.moved = True
        placement.whole = not read.kept
        placement.sent_at, placement.spoken = None, False
        load.hold(placement)

    def uncut(self, placement: Placement, now: float) -> None:
        """The turn that was sent in part is sent whole instead."""
        placement.whole = True
        load = self.load(placement.worker_id)
        load.ended(placement.serial, now)
        self._send(load, placement, now)

    def ended(self, placement: Placement, now: float) -> None:
        """The turn is over, well or not."""
        if placement.sent_at is None:
            return
        self.load(placement.worker_id).ended(placement.serial, now)
        placement.sent_at = None
        if placement.keys:
            self.caches.view(placement.worker_id).ended(placement.serial, placement.keys)

    def withdrawn(self, placement: Placement) -> None:
        """A held turn is not to be sent."""
        self.load(placement.worker_id).discard(placement)
        self.caches.view(placement.worker_id).withdrawn(placement.serial)

    def spare(self, now: float) -> Placement | None:
        """Take back the held turn that an idle worker would begin with sooner; it is to be placed again.

        Where a turn is held was decided when it came, and what came true since may be different. The worker that has
        the most to do gives up the turn that is next there. A turn is taken back once.
        """
        idle, full, most = None, None, self._tuning.hold_secs
        for worker_id, load in self._loads.items():
            backlog = load.backlog(now)
            if len(load.held):
                if backlog + load.held.secs > most:
                    full, most = load, backlog + load.held.secs
            elif backlog <= 0 and (idle is None or load.inflight < self._loads[idle].inflight):
                idle = worker_id
        if idle is None or full is None:
            return None
        turn = full.held.first(lambda turn: not turn.moved and idle in turn.choice)
        if turn is None:
            return None
        depth = self.caches.depths(turn.keys).get(self.caches.slot(idle), 0) if turn.keys else 0
        cached = min(int(depth * turn.block), max(turn.tokens - 1, 0))
        here = self._loads[idle].reckoned.secs(turn.tokens - cached, cached)
        weight = 1 + later(self._loads[idle].busy(now))
        if here * weight >= full.backlog(now) + turn.secs * weight:
            return None
        full.discard(turn)
        self.caches.view(turn.worker_id).withdrawn(turn.serial)
        return turn

    def evict(self, worker_id: str) -> list[Placement]:
        """Take all held turns from the worker; they are to be placed again."""
        load, taken = self.load(worker_id), list[Placement]()
        while (placement := load.take()) is not None:
            self.caches.view(worker_id).withdrawn(placement.serial)
            taken.append(placement)
        return taken

    def confirm(self, worker_id: str, predicted: int, actual: int) -> None:
        """The engine found `actual` tokens cached where `predicted` were expected."""
        if actual:
            self.load(worker_id).caches = True
        view = self.caches.view(worker_id)
        if isinstance(view, RecentBlocks):
            view.confirm(predicted, actual)

    def told(self, worker_id: str, engine: EngineLoad, own: int, now: float, until: float) -> None:
        """The worker's engine says how loaded it is, with at most `own` turns of ours; believed `until` then."""
        self.load(worker_id).told(engine, own, self._turn_secs, now, until)
        self._expire_at = min(self._expire_at, until)

    def forget(self, worker_id: str) -> None:
        """The worker is gone; it holds no turns any more."""
        self._loads.pop(worker_id, None)
        self.caches.forget(worker_id)

    def _field(self, prompt: Prompt, worker_ids: Sequence[str], now: float) -> Field:
        if now >= self._expire_at:
            for load in self._loads.values():
                load.expire(now)
            self._expire_at = min((load.others.until for load in self._loads.values() if load.others), default=inf)
        roster = self._board.roster(worker_ids, self._row)
        cached = [0] * len(worker_ids)
        if prompt.keys:
            block, most = prompt.block_tokens, max(prompt.tokens - 1, 0)
            for row, depth in self.caches.depths(prompt.keys, prompt.known).items():
                place = roster.place.get(row)
                if place is not None:
                    cached[place] = min(int(depth * block), most)
        return self._board.field(roster, cached, self.caches.regrets.shares, now)

    def _row(self, worker_id: str) -> int:
        return self.load(worker_id).row

    def _speak(self, placement: Placement, now: float) -> Load:
        """It is past reading, or a part of it is; the load it belongs to."""
        placement.spoken = True
        self.caches.settle()
        load = self.load(placement.worker_id)
        load.spoke(placement.serial, now)
        return load

    def _observed(self, load: Load, new: int, cached: int, secs: float) -> None:
        """An idle worker took `secs` for `new` tokens behind `cached` ones."""
        before = load.rate if load.observed else self._rate
        load.rate, load.observed = before.observed(new, cached, secs), load.observed + 1
        self._rate = fleet = self._rate.observed(new, cached, secs)
        rates = [fleet]
        for each in self._loads.values():
            if each.observed < _ENOUGH or each.rate.like(fleet):
                each.reckoned = fleet
            else:
                each.reckoned = each.rate
                rates.append(each.rate)
        self._board.quickest = quickest(rates)

    def _send(self, load: Load, placement: Placement, now: float) -> None:
        placement.sent_at = now
        # With somebody else's turns there, how long ours takes says little.
        alone = load.others is None or now >= load.others.until or not load.others.turns
        placement.idle = load.reading == 0 and alone
        secs = self._cut(load, placement)
        if placement.keys:
            end = placement.depth + round(placement.part / placement.block) if placement.part else None
            self.caches.regrets.read(placement.keys[placement.depth : end], now)
        self._turn_secs += _TURN_WEIGHT * (secs - self._turn_secs)
        tokens = placement.cached + placement.part if placement.part else placement.tokens
        load.sent(placement.serial, secs, now, tokens)

    def _cut(self, load: Load, placement: Placement) -> float:
        """Send all of the prompt or a part of it; how long that takes to read."""
        placement.part, most = 0, self._tuning.part_secs
        # Somebody who bills prompts would bill each part.
        may = load.caches and load.tells and not placement.whole
        if not may or not most or placement.secs <= _MOST_PARTS * most or self._fills(load, placement):
            return placement.secs
        block = placement.block
        placement.part = int(max(load.reckoned.tokens(most, placement.cached) // block, 1) * block)
        return load.reckoned.secs(placement.part, placement.cached)

    def _fills(self, load: Load, placement: Placement) -> bool:
        """Whether little of the worker's memory is left beside the prompt and what is under way there."""
        room = self.caches.view(placement.worker_id).capacity * placement.block
        return max(load.used_tokens / room, load.memory) + placement.tokens / room > _MOST_MEMORY
