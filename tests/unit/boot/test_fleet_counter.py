"""Whoever can count is asked, and nobody for ever."""

from __future__ import annotations

import asyncio

from app.backends.settings import BackendSettings
from app.backends.tokenizing import Tokenizer
from app.backends.workers import Workers
from app.boot.desk import FleetCounter
from app.responses.ports import RouteKey
from app.turn.ids import CountedIds
from app.turn.request import TurnRequest
from tests.support.clocks import pass_time
from tests.support.raw_http import Peer, raw_server, sized
from tests.support.waiting import eventually
from tests.unit.routing.fleet_world import FakeWorker, FakeWorld

ROUTE, TURN = RouteKey(tenant="t", model="m"), TurnRequest(model="m", items=())


async def still(peer: Peer) -> None:
    await peer.request()
    await asyncio.Event().wait()


async def counts(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(sized(b'{"count": 7, "tokens": []}'))


async def test_a_worker_that_stands_still_keeps_nobody_waiting() -> None:
    workers = Workers(BackendSettings(), CountedIds())
    try:
        async with raw_server(still) as frozen, raw_server(counts) as able:
            for urls, number in (((frozen.url, able.url), 7), ((frozen.url,), None)):
                fleet = FakeWorld({url: FakeWorker() for url in urls}).fleet()
                await fleet.ready()
                counter = FleetCounter(fleet, Tokenizer(workers, BackendSettings()), 30)
                asked = len(frozen.requests)
                counting = asyncio.create_task(counter.count(ROUTE, TURN))
                await eventually(lambda asked=asked: len(frozen.requests) > asked)
                await pass_time(35)
                assert await asyncio.wait_for(counting, 25) == number
    finally:
        await workers.close()
