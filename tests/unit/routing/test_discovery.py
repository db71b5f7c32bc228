"""Workers that are found, come, go and come back."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from app.responses.ports import RouteKey
from app.routing.discovery import Discovery, DnsSource, FileSource, Found, SourceFailed
from app.routing.fleet import WorkerFleet
from app.turn.request import TurnRequest
from tests.unit.routing.fleet_world import FakeWorker, FakeWorld, drain, world

KEY, REQUEST = RouteKey(tenant="t", model="m"), TurnRequest(model="m", items=())


class Source:
    """Says what a test says."""

    def __init__(self, *urls: str) -> None:
        self.found = [Found(url) for url in urls]
        self.fails = False

    async def __call__(self) -> list[Found]:
        if self.fails:
            raise SourceFailed("away")
        return self.found


def scene(source: Source) -> tuple[FakeWorld, WorkerFleet, Discovery]:
    w = world(named=FakeWorker(), a=FakeWorker(), b=FakeWorker())
    fleet = w.fleet(worker_urls=("http://named",))
    return w, fleet, Discovery(source, fleet, w.now, interval_secs=1.0, grace_secs=60.0)


def known(fleet: WorkerFleet) -> dict[str, bool]:
    return {worker.id.removeprefix("http://"): worker.draining for worker in fleet.registry.snapshot.workers}


async def test_workers_come_and_go_and_named_ones_stay() -> None:
    source = Source("http://a/", "http://b")
    _, fleet, discovery = scene(source)
    await discovery.look()
    assert known(fleet) == {"named": False, "a": False, "b": False}
    assert fleet.registry.get("http://a").healthy
    source.found = [Found("http://a")]
    await discovery.look()
    assert known(fleet) == {"named": False, "a": False}
    source.found = []
    await discovery.look()
    assert known(fleet) == {"named": False}


async def test_workers_have_the_order_that_the_source_gives_them() -> None:
    names = [f"w{number}" for number in (7, 2, 9, 4, 1, 8, 3, 6)]
    w = world(**{name: FakeWorker() for name in names})
    fleet = w.fleet(worker_urls=())
    source = Source(*(f"http://{name}" for name in names))
    await Discovery(source, fleet, w.now, interval_secs=1.0, grace_secs=60.0).look()
    assert list(known(fleet)) == names


async def test_a_worker_that_is_gone_may_finish_and_may_come_back() -> None:
    source = Source("http://a")
    w, fleet, discovery = scene(source)
    await discovery.look()
    fleet.remove("http://named")
    async with fleet.lease(KEY, REQUEST):
        source.found = []
        await discovery.look()
        assert known(fleet) == {"a": True}
        source.found = [Found("http://a")]
        await discovery.look()
        assert known(fleet) == {"a": False}
        source.found = []
        await discovery.look()
        w.time += 60
        await discovery.look()
        assert known(fleet) == {}


async def test_a_source_that_fails_changes_nothing() -> None:
    source = Source("http://a")
    _, fleet, discovery = scene(source)
    await discovery.look()
    source.fails = True
    await discovery.look()
    assert known(fleet) == {"named": False, "a": False}


async def test_what_somebody_did_by_hand_is_respected() -> None:
    source = Source("http://named", "http://a")
    _, fleet, discovery = scene(source)
    await discovery.look()
    fleet.remove("http://a")
    source.found = []
    await discovery.look()
    # It was named before it was found, so it is not discovery's.
    assert known(fleet) == {"named": False}


async def test_one_that_somebody_removed_while_it_left_is_found_again() -> None:
    source = Source("http://a")
    _, fleet, discovery = scene(source)
    await discovery.look()
    fleet.remove("http://named")
    async with fleet.lease(KEY, REQUEST):
        source.found = []
        await discovery.look()
        fleet.remove("http://a")
        source.found = [Found("http://a")]
        await discovery.look()
        assert known(fleet) == {"a": False}


async def test_what_is_said_of_a_worker_may_change() -> None:
    source = Source()
    w, fleet, discovery = scene(source)
    source.found = [Found("http://a", "old", "tcp://a:1")]
    await discovery.look()
    drain(fleet, "http://a")
    source.found = [Found("http://A/v1", "new")]
    await discovery.look()
    worker = fleet.registry.get("http://a")
    assert (worker.api_key, worker.kv_events, worker.draining) == ("new", None, True)
    fleet.backend(worker)
    assert w.keys["http://a"] == "new"
    fleet.remove("http://a")
    source.found = [Found("http://a", "newer")]
    await discovery.look()
    assert known(fleet) == {"named": False}


async def test_a_source_that_stays_broken_is_spoken_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "workers.yaml"
    w = world(a=FakeWorker(), b=FakeWorker())
    fleet = w.fleet(worker_urls=())
    discovery = Discovery(FileSource(path), fleet, w.now, interval_secs=1.0, grace_secs=60.0)
    caplog.set_level(logging.INFO, "app.routing.discovery")
    told = []
    for content in ("[http://a]", "[", "- http://a\n- {", "- {urls: http://a}", "[http://a, http://b]"):
        path.write_text(content)
        caplog.clear()
        for _ in range(3):
            await discovery.look()
        assert "a" in known(fleet)
        told.append([record.levelname for record in caplog.records if record.name == "app.routing.discovery"])
        assert "\n" not in "".join(caplog.messages)
    assert known(fleet) == {"a": False, "b": False}
    # In the end it is said that all is well, and that another one was found.
    assert told == [["INFO"], ["WARNING"], ["WARNING"], ["WARNING"], ["INFO", "INFO"]]


@pytest.mark.parametrize("wrong", [Found("http://"), Found("http://b", kv_events="tcp://*:5557")])
async def test_a_source_that_names_what_is_no_address_changes_nothing(wrong: Found) -> None:
    source = Source("http://a")
    _, fleet, discovery = scene(source)
    await discovery.look()
    source.found = [wrong]
    await discovery.look()
    assert known(fleet) == {"named": False, "a": False}


async def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "workers.yaml"
    source = FileSource(path)
    with pytest.raises(SourceFailed):
        await source()
    path.write_text("- http://a\n- {url: http://b, api_key: k, kv_events: 'tcp://b:1'}\n")
    assert await source() == [Found("http://a"), Found("http://b", "k", "tcp://b:1")]
    path.write_text(json.dumps([{"url": "http://c"}]))
    assert await source() == [Found("http://c")]
    for wrong in ("- {no: url}", "a: b", "- [", "- {url: x, novel: 1}"):
        path.write_text(wrong)
        with pytest.raises(SourceFailed):
            await source()


async def test_all_addresses_of_a_name_are_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await DnsSource("http://127.0.0.1:8000/v1")() == [Found("http://127.0.0.1:8000/v1")]

    async def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert (host, port) == ("workers", 80)
        return [(0, 0, 0, "", (address, port)) for address in ("10.0.0.2", "10.0.0.1", "10.0.0.2", "fe80::1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    assert [found.url for found in await DnsSource("http://workers")()] == [
        "http://10.0.0.1:80",
        "http://10.0.0.2:80",
        "http://[fe80::1]:80",
    ]


async def test_a_name_nobody_knows_says_nothing() -> None:
    with pytest.raises(SourceFailed):
        await DnsSource("http://no-such-host.invalid")()
