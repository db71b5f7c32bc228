"""Where turns wait for a worker: the placer decides, this wakes who is to be sent.

A held turn sleeps on a future. It is woken when its worker has room (because another turn spoke or ended, or because
time ran the backlog down), and also when its worker is gone: then it is told that it was not sent, and asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from app.routing.cachemap import CacheMap, Exact
from app.routing.engine_load import EngineLoad
from app.routing.loads import PartRead, Placement
from app.routing.placer import Placer, Prompt, Tuning
from app.routing.policies import Ask, Policy

# A timer that fires a little late finds its turn due; one that fires a little early has to be set again.
_SLACK_SECS = 0.001


class Desk:
    """Placements of one fleet. `monotonic` is its clock, in seconds."""

    def __init__(self, caches: CacheMap, tuning: Tuning, monotonic: Callable[[], float]) -> None:
        self.caches = caches
        self._placer = Placer(caches, tuning)
        self._now = monotonic
        self._waiting: dict[Placement, asyncio.Future[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def inflight(self, worker_id: str) -> int:
        """Turns that were sent to the worker and are not over."""
        return self._placer.load(worker_id).inflight

    def held(self, worker_id: str) -> int:
        """Turns that wait for the worker."""
        return len(self._placer.load(worker_id).held)

    def cached_blocks(self, worker_id: str) -> int:
        """Blocks that the worker is thought to hold."""
        return len(self.caches.view(worker_id))

    def regret(self, worker_id: str) -> float:
        """The share of what the worker's cache gave up lately that was asked for again."""
        return self.caches.regrets.shares[self.caches.slot(worker_id)]

    def tells(self, worker_id: str) -> bool:
        """Whether the worker's engine itself tells what it holds."""
        return isinstance(self.caches.view(worker_id), Exact)

    def place(self, policy: Policy, ask: Ask, prompt: Prompt, worker_ids: Sequence[str], *, hold: bool) -> Placement:
        """Give the turn to one of the workers. See `Placer.place`."""
        placement = self._placer.place(policy, ask, prompt, worker_ids, self._now(), hold=hold)
        if placement.sent_at is None:
            self._waiting[placement] = asyncio.get_running_loop().create_future()
            self._set_timer(placement.worker_id)
        return placement

    def knows(self, placement: Placement) -> bool:
        """See `Placer.knows`. What happens to a turn whose worker was removed is not written down any more."""
        return self._placer.knows(placement)

    async def sent(self, placement: Placement) -> bool:
        """Wait until the turn is to be sent. False: its worker is gone, and it has to be placed again."""
        waiting = self._waiting.get(placement)
        if waiting is not None:
            await waiting
        return placement.sent_at is not None

    def spoke(self, placement: Placement) -> None:
        """The first event of the turn came."""
        if not placement.spoken and self.knows(placement):
            self._placer.spoke(placement, self._now())
            self._release(placement.worker_id)

    def ended(self, placement: Placement) -> None:
        """The turn is over, whether or not it was ever sent."""
        waiting = self._waiting.pop(placement, None)
        if waiting is not None:
            waiting.cancel()
        if not self.knows(placement):
            return
        if waiting is not None:
            self._placer.withdrawn(placement)
        else:
            self._placer.ended(placement, self._now())
        self._release(placement.worker_id)

    def part_read(self, placement: Placement, read: PartRead) -> None:
        """See `Placer.part_read`. `sent` says when it goes on."""
        if not self.knows(placement):
            placement.sent_at = None
            return
        self._waiting[placement] = asyncio.get_running_loop().create_future()
        self._placer.part_read(placement, read, self._now())
        self._release(placement.worker_id)

    def uncut(self, placement: Placement) -> None:
        """See `Placer.uncut`."""
        placement.part = 0
        if self.knows(placement):
            self._placer.uncut(placement, self._now())

    def confirm(self, placement: Placement, actual: int) -> None:
        """The engine found `actual` tokens of the prompt in its cache."""
        self._placer.confirm(placement.worker_id, placement.predicted, actual)

    def told(self, worker_id: str, engine: EngineLoad, own: int, secs: float) -> None:
        """The worker's engine says how loaded it is, which is believed for `secs`. See `Placer.told`."""
        now = self._now()
        self._placer.told(worker_id, engine, own, now, now + secs)

    def others(self, worker_id: str) -> int:
        """Turns the worker has from others, as far as its engine tells."""
        others = self._placer.load(worker_id).others
        return round(others.turns) if others is not None and self._now() < others.until else 0

    def evict(self, worker_id: str) -> None:
        """The worker takes no turns now: those that wait for it are placed again."""
        self._wake(self._placer.evict(worker_id))

    def restarted(self, worker_id: str) -> None:
        """The worker may have begun anew. An engine that tells what it holds has told that too, perhaps before this."""
        self._placer.load(worker_id).caches = False
        view = self.caches.view(worker_id)
        if not isinstance(view, Exact):
            view.clear()

    def forget(self, worker_id: str) -> None:
        """The worker is gone for good."""
        self.evict(worker_id)
        timer = self._timers.pop(worker_id, None)
        if timer is not None:
            timer.cancel()
        self._placer.forget(worker_id)

    def _release(self, worker_id: str) -> None:
        if self._waiting:
            self._wake(self._placer.release(worker_id, self._now()))
            self._set_timer(worker_id)
            spared = self._placer.spare(self._now())
            if spared is not None:
                # Told that it was not sent, it asks again.
                self._wake((spared,))
                self._set_timer(spared.worker_id)

    def _wake(self, placements: Iterable[Placement]) -> None:
        for placement in placements:
            waiting = self._waiting.pop(placement, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def _set_timer(self, worker_id: str) -> None:
        timer = self._timers.pop(worker_id, None)
        if timer is not None:
            timer.cancel()
        now = self._now()
        due = self._placer.due(worker_id, now)
        if due is not None:
            pause = due - now + _SLACK_SECS
            self._timers[worker_id] = asyncio.get_running_loop().call_later(pause, self._release, worker_id)
