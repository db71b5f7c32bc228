"""What clients find beside responses."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress

from app.api.services import Desk
from app.backends.chat import Site, base_of
from app.backends.tokenizing import Tokenizer
from app.backends.workers import Workers
from app.boot.kept import Kept
from app.responses.conversations import Conversations
from app.responses.counting import Counting
from app.responses.including import Including
from app.responses.ports import Ports, RouteKey
from app.responses.prompts import Prompts
from app.responses.repeats import Repeats
from app.responses.runs import Runs
from app.responses.service import Responses
from app.routing.fleet import WorkerFleet
from app.routing.patience import patiently
from app.settings.tree import Settings
from app.turn.request import TurnRequest


class FleetCounter:
    """`TokenCounter` over the fleet's workers: unless one is wanted, the first that can count is as good as any.

    Each has `patience_secs`: one that stands still would take as long as a whole answer may.
    """

    def __init__(self, fleet: WorkerFleet, tokenizer: Tokenizer, patience_secs: float) -> None:
        self._fleet = fleet
        self._tokenizer = tokenizer
        self._patience_secs = patience_secs

    async def count(self, route: RouteKey, turn: TurnRequest) -> int | None:
        """See `TokenCounter`."""
        snapshot = self._fleet.registry.snapshot
        wanted = None if route.target is None else snapshot.find(route.target)
        for worker in snapshot.workers if wanted is None else (wanted,):
            if worker.healthy and worker.may_serve(turn.model):
                site = Site(url=base_of(worker.url), api_key=worker.api_key)
                with suppress(TimeoutError):
                    found = await patiently(self._tokenizer.count(site, turn), self._patience_secs)
                    if found is not None:
                        return found
        return None


def open_desk(
    settings: Settings,
    ports: Ports,
    runs: Runs,
    responses: Responses,
    kept: Kept,
    fleet: WorkerFleet,
    stack: AsyncExitStack,
) -> Desk:
    """The use-cases."""
    workers = Workers(settings.backends, ports.ids)
    stack.push_async_callback(workers.close)
    counter = FleetCounter(fleet, Tokenizer(workers, settings.backends), settings.routing.health_check_timeout_secs)
    now = ports.clock.now
    return Desk(
        conversations=Conversations(kept.conversations, ports.history, ports.sealer, ports.ids, now),
        prompts=Prompts(kept.prompts, ports.ids, now),
        repeats=Repeats(responses, runs, kept.keys, ports.events, ports.ids, now),
        counting=Counting(ports, responses.planner, counter),
        index=kept.index,
        including=Including(ports.sealer),
    )
