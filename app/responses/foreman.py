"""Finds runs that nobody makes, and makes them: those that wait in the queue, and those whose maker is gone.

Every process has a foreman. It says from time to time that the process is alive, learns which of its runs were
cancelled from elsewhere or lost to somebody else, and claims what is free as long as it has room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from msgspec import structs

from app.responses.context import built_on
from app.responses.making import DOOMED, Maker
from app.responses.plan import Plan, Recipe, recall
from app.responses.planning import Planner
from app.responses.ports import Held, Lease, OpenRun, Ports, RouteKey, StoredItem
from app.responses.runs import Run, Runs
from app.responses.settings import ResponsesSettings
from app.turn.errors import Failure, GatewayError, Unavailable
from app.turn.events import Abort, Cancel, Start
from app.turn.ids import SeededIds
from app.turn.request import TurnRequest

_log = logging.getLogger(__name__)

_BRIEF_AT_ONCE = 32
# So many renewals that did not come are a silence.
_MISSED = 2


class Foreman:
    """`renew_secs`: how often to say that the process is alive. `poll_secs`: how often to look for free runs."""

    def __init__(
        self,
        ports: Ports,
        runs: Runs,
        maker: Maker,
        settings: ResponsesSettings,
        *,
        renew_secs: float,
        poll_secs: float,
    ) -> None:
        self._ports = ports
        self._runs = runs
        self._maker = maker
        self._settings = settings
        self._planner = Planner(ports, settings)
        # By the loop's clock: when this process last said that it is alive, and until when it claims nothing.
        self._spoke_at = asyncio.get_running_loop().time()
        self._waits_until = 0.0
        self._renew_secs = renew_secs
        self._poll_secs = poll_secs
        self._claiming, self._claims = False, 0

    async def renew(self) -> None:
        """Keep this process's runs, for as long as this goes on."""
        while True:
            try:
                await self.renew_once()
            except GatewayError as error:
                _log.warning("leases could not be renewed: %s", error.message)
            await self._ports.runs.rest(self._renew_secs)

    async def claim(self) -> None:
        """Look for runs to make, for as long as this goes on."""
        while True:
            try:
                await self.claim_once()
            except GatewayError as error:
                _log.warning("runs could not be claimed: %s", error.message)
            await self._ports.runs.rest(self._poll_secs)

    async def claim_once(self) -> None:
        """Take what is free and fits.

        While leases cannot be renewed, and for a moment after that, nothing is: runs whose owners are alive look as if
        they had none.
        """
        now = asyncio.get_running_loop().time()
        if self._runs.draining or self._is_silent(now) or now < self._waits_until:
            return
        self._claiming, self._claims = True, self._claims + 1
        try:
            await self._claim()
        finally:
            self._claiming = False

    async def _claim(self) -> None:
        for found in await self._ports.runs.claim(_BRIEF_AT_ONCE, brief=True):
            await self._take(found)
        busy = sum(run.background for run in self._runs.all)
        for found in await self._ports.runs.claim(self._settings.background_runs - busy, brief=False):
            await self._take(found)

    async def renew_once(self) -> None:
        """Say that the process is alive, end what others have asked to end or have taken over, let go of what is its
        own and nobody makes, and write what is owed."""
        claims = self._claims
        owned = [run for run in self._runs.all if run.lease is not None]
        held = {key_of(each.lease): each for each in await self._ports.runs.renew()}
        self._note_spoken(asyncio.get_running_loop().time())
        for run in owned:
            mine = held.pop((run.tenant, run.id), None)
            if mine is None:
                run.lapsed()
            elif mine.cancelled:
                run.end(Cancel())
        if not self._claiming and claims == self._claims:
            # Otherwise what was just claimed is not in the making yet.
            await self._release_strays(held)
        await self._maker.owing.pay()

    def _is_silent(self, now: float) -> bool:
        return now - self._spoke_at > _MISSED * self._renew_secs

    def _note_spoken(self, now: float) -> None:
        if self._is_silent(now):
            # Others were as silent, and have to be given the time to say that they are alive.
            self._waits_until = now + self._renew_secs
        self._spoke_at = now

    async def _release_strays(self, held: Mapping[tuple[str, str], Held]) -> None:
        """Leave to others what is this process's and nobody makes here: what was noted or claimed when nobody heard
        that it was, and what could not be written about."""
        for key, each in held.items():
            if self._runs.get(*key) is None:
                await self._ports.runs.release(each.lease)

    async def _take(self, found: OpenRun) -> None:
        """Make a run from where its log ends."""
        if found.request is None:
            await self._ports.runs.end(found.lease)
            return
        try:
            run, planned, fault = await self._rebuild(found, recall(found.request))
            doomed = found.lease.fence > self._settings.max_takeovers + 1
            if fault is None:
                work = self._maker.resume(run, planned, found, Abort(DOOMED) if doomed else None)
            else:
                work = self._give_up(run, planned, found, fault)
            await self._runs.start(run, work)
        except Unavailable as error:
            _log.warning("run %s is left for later: %s", found.lease.response_id, error.message)
            await self._ports.runs.release(found.lease)

    async def _rebuild(self, found: OpenRun, recipe: Recipe) -> tuple[Run, Plan, Failure | None]:
        """The run as it was when it began, or as much of it as its end needs, and why it cannot go on."""
        request = recipe.read_request()
        tenant, ids = found.lease.tenant, SeededIds(recipe.seed)
        fault: Failure | None = None
        context: tuple[StoredItem, ...] = ()
        try:
            # Nobody adds to a conversation while a run of it is open, so it is what it was.
            before = await built_on(self._ports, tenant, request)
            context = before.items
            planned = await self._planner.again(recipe, tenant, context, ids)
            planned = structs.replace(planned, version=before.version, until=before.until)
        except Unavailable:
            raise
        except GatewayError as error:
            fault = error.failure
            nothing = Start(TurnRequest(model=request.model, items=()))
            route = RouteKey(tenant=tenant, model=request.model)
            planned = Plan(recipe.principal, request, context, (), (), nothing, route)
        lease = found.lease
        encoder = self._planner.encoder(
            tenant, lease.response_id, request, ids, profile=recipe.profile, created_at=found.created_at
        )
        given = (*context, *planned.own)
        return Run(tenant, encoder, stored=True, given=given, background=found.background), planned, fault

    async def _give_up(self, run: Run, planned: Plan, found: OpenRun, fault: Failure) -> None:
        run.lease = found.lease
        run.tail = self._ports.runs.tail(found.lease, found.entries, run)
        told = tuple(event for entry in found.entries for event in entry.events)
        run.log.append(told)
        run.ready()
        await self._maker.give_up(run, planned, told, fault)


def key_of(lease: Lease) -> tuple[str, str]:
    """What a lease is about: the tenant, and the response."""
    return lease.tenant, lease.response_id


async def both(foreman: Foreman) -> None:
    """All a foreman does."""
    async with asyncio.TaskGroup() as group:
        group.create_task(foreman.renew(), name="foreman renews")
        group.create_task(foreman.claim(), name="foreman claims")
