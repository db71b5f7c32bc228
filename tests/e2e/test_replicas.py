"""Two gateways on one PostgreSQL: a run passes from one to the other, and a stream is followed at either."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.contract.history.postgres_server import Server
from tests.e2e.crashing import LEASE_SECS, SCRIPT, Park, Seen, World, await_stop, ended, freeze, park, thaw, verdict
from tests.support.doomed_server import STAND_STILL
from tests.support.processes import SHEPHERD, process

pytestmark = pytest.mark.slow

# Nobody takes a run away from a gateway for being slow.
LONG_LEASE_SECS = 60
# What takes as long as it is told to: a tool that waits for a file, and a model that falls silent.
PATIENT = """
  - when: ^Tarry
    calls:
      - {name: wait, arguments: {gate: GATE}}
  - when: ^Stay
    text: I am not going to come to an end.
    fault: {hang_after: 2}
"""


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Park]:
    """A worker that speaks slowly, and tools."""
    home = tmp_path_factory.mktemp("park")
    script = SCRIPT + PATIENT.replace("GATE", json.dumps(str(home / "gate"))).removeprefix("\n")
    with park(home, "--token-ms", "40", script=script) as found:
        yield found


@pytest.fixture
def there(beside: Park, postgres: Server, tmp_path: Path) -> World:
    """An empty PostgreSQL database at head."""
    url = asyncio.run(postgres.create(f"e2e_{uuid.uuid4().hex}"))
    found = beside.world(tmp_path, url)
    with process([SHEPHERD, "migrate", "--database-url", url], log=tmp_path / "log") as migrating:
        assert migrating.wait(180) == 0
    return found


def test_a_dead_gateway_s_run_is_taken_over_within_seconds(there: World) -> None:
    with there.gateway() as (one, first), there.gateway() as (other, _):
        seen = Seen()
        body = there.body(background=True, stream=False)
        seen.response_id = httpx.post(f"{one}/v1/responses", json=body, timeout=60).json()["id"]
        # Whichever of the two has claimed it, one of them is killed while the other follows.
        with ThreadPoolExecutor() as pool:
            following = pool.submit(seen.read, "GET", f"{other}/v1/responses/{seen.response_id}?stream=true")
            seen.await_events(3)
            first.kill()
            began = time.monotonic()
            following.result(120)
        assert time.monotonic() - began < 30 * LEASE_SECS
        assert verdict(there, other, seen) == []
        assert ended(other, seen.response_id)["status"] == "completed"


def test_a_stream_is_followed_at_another_gateway_byte_for_byte(there: World) -> None:
    one_, other_ = (there.gateway(history__lease_secs=LONG_LEASE_SECS) for _ in range(2))
    with one_ as (one, _), other_ as (other, _):
        seen, aside, astray = Seen(), Seen(), Seen()

        def nowhere(gateway: str) -> str:
            return f"{gateway}/v1/responses/{seen.response_id}?stream=true&starting_after=10000"

        with (
            ThreadPoolExecutor() as pool,
            httpx.stream("POST", f"{one}/v1/responses", json=there.body(input="Tarry."), timeout=60) as answer,
        ):
            following = None
            for line in answer.iter_lines():
                seen.take(line)
                if following is None and len(seen.events) == 3:
                    url = f"{other}/v1/responses/{seen.response_id}?stream=true&starting_after=1"
                    following = pool.submit(aside.read, "GET", url)
                    pool.submit(astray.read, "GET", nowhere(other))
                    assert httpx.get(nowhere(one), timeout=60).status_code == 400
                    aside.await_events(1)
                    astray.await_events(0)
                    there.ledger.with_name("gate").touch()
            assert following is not None
            following.result(120)
        assert min(aside.events) == 2
        assert aside.events == {number: data for number, data in seen.events.items() if number > 1}
        assert (astray.events, (astray.error or {}).get("param")) == ({}, "starting_after")
        for gateway in (one, other):
            refused = httpx.get(nowhere(gateway), timeout=60)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "starting_after")
        assert verdict(there, other, seen) == []


def test_one_that_was_frozen_past_its_lease_writes_nothing_more(there: World) -> None:
    with there.gateway() as (one, first):
        seen = Seen()
        body = there.body(background=True, stream=False)
        seen.response_id = httpx.post(f"{one}/v1/responses", json=body, timeout=60).json()["id"]
        deadline = time.monotonic() + 60
        while not there.effects():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        freeze(first)
        try:
            with there.gateway() as (other, _):
                assert ended(other, seen.response_id)["status"] == "completed"
                before = httpx.get(f"{other}/v1/responses/{seen.response_id}?stream=true", timeout=60).content
                thaw(first)
                time.sleep(2 * LEASE_SECS)
                after = httpx.get(f"{one}/v1/responses/{seen.response_id}?stream=true", timeout=60).content
                assert after == before
                assert verdict(there, other, seen) == []
        finally:
            thaw(first)


def test_one_that_is_frozen_in_the_middle_of_a_write_keeps_nobody_waiting(there: World) -> None:
    """It holds the lock of its run's row until PostgreSQL sees that it stands still."""
    # Longer than it stands still of itself on a machine that is busy elsewhere.
    short = {"db__postgresql_idle_transaction_secs": 2.0}
    more = {STAND_STILL: "1"}
    with there.gateway("before-append,before-commit", "2", more=more, **short) as (one, first):
        seen = Seen()
        body = there.body(background=True, stream=False)
        seen.response_id = httpx.post(f"{one}/v1/responses", json=body, timeout=60).json()["id"]
        try:
            await_stop(first)
            with there.gateway() as (other, _):
                assert ended(other, seen.response_id)["status"] == "completed"
                thaw(first)
                time.sleep(2 * LEASE_SECS)
                assert verdict(there, other, seen) == []
                assert ended(one, seen.response_id)["status"] == "completed"
        finally:
            thaw(first)


def test_a_cancel_reaches_the_gateway_that_makes_the_run(there: World) -> None:
    with there.gateway() as (one, _), there.gateway() as (other, _):
        for asked in (one, other):
            seen = Seen()
            body = there.body(input="Stay.", background=True, stream=False)
            seen.response_id = httpx.post(f"{one}/v1/responses", json=body, timeout=60).json()["id"]
            with ThreadPoolExecutor() as pool:
                following = pool.submit(seen.read, "GET", f"{one}/v1/responses/{seen.response_id}?stream=true")
                seen.await_events(3)
                answer = httpx.post(f"{asked}/v1/responses/{seen.response_id}/cancel", timeout=60).json()
                following.result(120)
            assert answer["status"] == "cancelled"
            assert ended(other, seen.response_id)["status"] == "cancelled"


def test_a_postgres_that_restarts_fails_no_run(there: World, postgres: Server) -> None:
    with there.gateway(history__patience_secs=60) as (url, _):
        seens = [Seen() for _ in range(6)]
        with ThreadPoolExecutor() as pool:
            reading = [pool.submit(seen.read, "POST", f"{url}/v1/responses", json=there.body()) for seen in seens]
            for each in seens:
                each.await_events(3)
            postgres.stop()
            postgres.start()
            for each in reading:
                each.result(120)
        for seen in seens:
            assert not seen.cut
            assert verdict(there, url, seen, responses=len(seens)) == []
            assert seen.response_id is not None
            assert ended(url, seen.response_id)["status"] == "completed"
