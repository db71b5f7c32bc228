"""Which worker a turn gets: who may take it, what the policy says, and what is learned from how it went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from app.responses.ports import RouteKey
from app.routing.accuracy import Accuracy
from app.routing.affinities import Affinities
from app.routing.breaker import Event, Rules
from app.routing.cachemap import CacheMap
from app.routing.desk import Desk
from app.routing.eligible import RETRY_AFTER_SECS, ServedModels, Serving, spare_newcomers, targeted
from app.routing.ledger import Ledger
from app.routing.loads import Placement
from app.routing.placer import Prompt, Tuning
from app.routing.policies import POLICIES, READS_PROMPTS, Ask
from app.routing.ports import Seen, World
from app.routing.reading import PromptReader
from app.routing.registry import Registry, Worker
from app.routing.settings import PolicyName, RoutingSettings
from app.turn.errors import NoWorker
from app.turn.events import TurnDone
from app.turn.request import TurnRequest


class Chooser:
    """Chooses among the workers of a registry. `policy` and `model_policies` may be changed at any time."""

    def __init__(self, registry: Registry, settings: RoutingSettings, world: World) -> None:
        self._registry = registry
        self._settings = settings
        self._world = world
        self.policy: PolicyName = settings.policy
        self.model_policies: dict[str, PolicyName] = dict(settings.model_policies)
        self.ledger = Ledger(_rules(settings))
        self._reader = PromptReader(registry, settings, world, self._guess)
        caches = CacheMap(capacity=settings.cache_index_blocks, worker_blocks=self._reader.worker_blocks)
        self.desk = Desk(
            caches,
            Tuning(hold_secs=settings.hold_secs, aging=settings.hold_aging, part_secs=settings.part_secs),
            world.monotonic,
        )
        self._stuck = Affinities(settings.sticky_most_keys)
        self._accuracy: defaultdict[str, Accuracy] = defaultdict(Accuracy)
        self._served = ServedModels()
        self._serial = 0
        # Told of a worker whose engine tells what is not so.
        self.distrust: Callable[[str], None] = lambda _worker_id: None

    def place(
        self, key: RouteKey, prompt: Prompt, model: str, tried: frozenset[str], since: float | None = None
    ) -> tuple[Worker, Placement]:
        """Choose a worker and count the turn. Workers in `tried` come into question only when there is no other.

        `since` is when a turn that was held elsewhere came.

        Raises `NoWorker`, or `InvalidRequest` for a target that is not known.
        """
        now = self._world.monotonic()
        serving = self._serving(key, model)
        ids = self._eligible(serving, tried, now)
        if not ids:
            raise NoWorker(f"No worker can serve '{model}' now.", retry_after=RETRY_AFTER_SECS)
        name = self.policy_of(model)
        wanted = key.affinity or key.conversation
        affinity = None if wanted is None else f"{key.tenant}\0{wanted}"
        ask = Ask(
            serial=self._serial,
            draws=(self._world.random.random(), self._world.random.random()),
            tokens=prompt.tokens,
            head=prompt.keys[0] if prompt.keys else prompt.short,
            key=affinity,
            stuck=self._stuck.get(affinity),
            since=since,
        )
        self._serial += 1
        placement = self.desk.place(POLICIES[name], ask, prompt, ids, hold=name == "cache_aware")
        self.ledger.begin(placement.worker_id, placement.placed)
        self._stuck.put(affinity, placement.worker_id)
        return serving.by_id[placement.worker_id], placement

    def _eligible(self, serving: Serving, tried: frozenset[str], now: float) -> Sequence[str]:
        """The workers that may be given the turn now."""
        shut, settings = self.ledger.shut(now), self._settings
        if not shut and not tried and now - serving.youngest_at >= settings.worker_warmup_secs:
            return serving.ids
        usable = [worker for worker in serving.workers if worker.id not in shut]
        untried = [worker for worker in usable if worker.id not in tried] or usable
        eligible = spare_newcomers(
            untried, self.ledger.inflight, now, settings.worker_warmup_secs, settings.worker_warmup_share
        )
        return [worker.id for worker in eligible]

    def policy_of(self, model: str) -> PolicyName:
        """The name of the policy for the model."""
        return self.model_policies.get(model, self.policy)

    async def read(self, key: RouteKey, request: TurnRequest) -> Prompt:
        """The prompt, as far as the model's policy asks for it."""
        if self.policy_of(request.model) not in READS_PROMPTS:
            return Prompt()
        return await self._reader.read(key, request)

    def _guess(self, worker_id: str) -> None:
        """Prompts cannot be compared with what the worker tells."""
        self.distrust(worker_id)

    def _serving(self, key: RouteKey, model: str) -> Serving:
        snapshot = self._registry.snapshot
        if key.target is None:
            return self._served.of(snapshot, model)
        return Serving.of((targeted(snapshot, key.target, model),), model)

    def ended(self, placement: Placement, outcome: Event) -> None:
        """A placed turn is over."""
        blame = outcome if self.desk.knows(placement) else "void"
        self.ledger.end(placement.worker_id, blame, placement.placed, self._world.monotonic())
        self.desk.ended(placement)

    def learned(self, model: str, prompt: Prompt, placement: Placement, done: TurnDone) -> None:
        """What the engine counted, beside what was thought."""
        usage = done.usage
        self._reader.counted(model, prompt, usage.input_tokens)
        if not self.desk.knows(placement):
            return
        # An engine that never says what it found cached must not make us believe that it finds nothing.
        if prompt.keys and self._accuracy[placement.worker_id].observe(placement.predicted, usage.cached_tokens):
            self.desk.confirm(placement, usage.cached_tokens)
            self._world.seen(Seen(model, placement.predicted, usage.cached_tokens, usage.input_tokens))
            if self._accuracy[placement.worker_id].ratio < self._settings.cache_trust:
                self.distrust(placement.worker_id)
                del self._accuracy[placement.worker_id]

    def accuracy(self, worker_id: str) -> float:
        """The share of the cached tokens predicted for the worker that were there; 1 until enough is known."""
        accuracy = self._accuracy.get(worker_id)
        return 1.0 if accuracy is None else accuracy.ratio

    def forget(self, worker_id: str) -> None:
        """The worker was removed."""
        self.ledger.reset(worker_id)
        self.desk.forget(worker_id)
        self._accuracy.pop(worker_id, None)


def _rules(settings: RoutingSettings) -> Rules:
    return Rules(
        failures=settings.cb_failure_threshold,
        successes=settings.cb_success_threshold,
        open_secs=settings.cb_timeout_duration_secs,
        window_secs=settings.cb_window_duration_secs,
    )
