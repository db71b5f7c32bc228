"""Workers of a cluster, by the list and watch of its API over a real wire."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from app.boot.discovery import kubernetes
from app.routing.discovery import Discovery, SourceFailed
from app.routing.kubernetes.access import Access, NoAccess, by_kubeconfig, in_cluster
from app.routing.kubernetes.objects import Object
from app.routing.kubernetes.watch import KubernetesSource, Query
from app.routing.settings import RoutingSettings
from app.settings.sources import SettingsError
from tests.support.kube_api import KubeApi, pod, recorded
from tests.support.waiting import eventually
from tests.unit.backends.test_https_worker import certificate
from tests.unit.routing.fleet_world import FakeWorker, world

QUERY = Query("pods", "app=vllm", "models", 8000)


@contextlib.asynccontextmanager
async def following(access: Access, query: Query = QUERY) -> AsyncGenerator[KubernetesSource]:
    source = KubernetesSource(access, query, random.Random(7), backoff_secs=(0.001, 0.01), patience_secs=30)
    task = asyncio.create_task(source.run())
    try:
        yield source
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def comes_to(source: KubernetesSource, *hosts: str) -> None:
    async with asyncio.timeout(30):
        while [found.url for found in await source()] != [f"http://10.1.0.{host}:8000" for host in hosts]:
            source.changed.clear()
            await source.changed.wait()


async def test_pods_come_go_and_wait_until_they_are_ready() -> None:
    async with KubeApi().serve() as api:
        await api.put(pod("a", "10.1.0.1"))
        await api.put(pod("other", "10.1.0.9", app="db"))
        async with following(Access(api.url)) as source:
            await comes_to(source, "1")
            await api.put(pod("b", "10.1.0.2", ready=False))
            await api.put(pod("b", "10.1.0.2"))
            await comes_to(source, "1", "2")
            leaving = pod("a", "10.1.0.1")
            leaving["metadata"]["deletionTimestamp"] = "2026-11-20T11:00:00Z"
            await api.put(leaving)
            await comes_to(source, "2")
            await api.delete("b")
            await comes_to(source)
            assert api.lists == 1


async def test_a_watch_that_is_cut_goes_on_where_it_was() -> None:
    async with KubeApi().serve() as api:
        await api.put(pod("a", "10.1.0.1"))
        async with following(Access(api.url)) as source:
            await eventually(lambda: api.watches == 1)
            await api.put(pod("b", "10.1.0.2"))
            await comes_to(source, "1", "2")
            await api.cut()
            await eventually(lambda: api.watches > 1)
            await api.put(pod("c", "10.1.0.3"))
            await comes_to(source, "1", "2", "3")
            assert (api.lists, api.watches > 1) == (1, True)


async def test_what_was_forgotten_is_listed_anew_in_pages() -> None:
    async with KubeApi().serve() as api:
        api.page = 1
        await api.put(pod("a", "10.1.0.1"))
        await api.put(pod("b", "10.1.0.2"))
        async with following(Access(api.url)) as source:
            await comes_to(source, "1", "2")
            await eventually(lambda: api.watches == 1)
            await api.delete("a")
            api.compact()
            await api.cut()
            await comes_to(source, "2")
            assert api.lists == 3


async def test_bookmarks_move_the_version_along() -> None:
    async with KubeApi().serve() as api:
        await api.put(pod("a", "10.1.0.1"))
        async with following(Access(api.url)) as source:
            await eventually(lambda: api.watches == 1)
            await api.put(pod("other", "10.1.0.9", app="db"))
            await api.bookmark()
            await api.cut(polite=True)
            await eventually(lambda: api.watches > 1)
            assert api.asked[:2] == [101, 103]
            await api.put(pod("b", "10.1.0.2"))
            await comes_to(source, "1", "2")
            assert api.lists == 1


async def test_endpoint_slices() -> None:
    async with KubeApi().serve() as api:
        await api.put(recorded("endpointslice"))
        query = Query("endpointslices", "kubernetes.io/service-name=vllm", None, 8000)
        async with following(Access(api.url), query) as source:
            await comes_to(source, "1", "3")


async def test_a_pod_of_two_address_families_is_one_worker() -> None:
    async with KubeApi().serve() as api:
        for family, first in (("IPv6", "fd00::"), ("IPv4", "10.1.0.")):
            made = recorded("endpointslice")
            made["metadata"]["name"] = family
            each = [
                {"addresses": [f"{first}{number}"], "conditions": {}, "targetRef": {"kind": "Pod", "uid": f"u{number}"}}
                for number in (1, 2)
            ]
            await api.put(made | {"addressType": family, "endpoints": each[: 2 if family == "IPv6" else 1]})
        query = Query("endpointslices", "kubernetes.io/service-name=vllm", None, None)
        async with following(Access(api.url), query) as source:
            assert [found.url for found in await source()] == ["http://10.1.0.1:8000", "http://[fd00::2]:8000"]


def slice_with(name: str, *ports: dict[str, object], address: str = "10.1.0.9") -> dict[str, Any]:
    made = recorded("endpointslice")
    made["metadata"]["name"] = name
    return made | {"ports": list(ports), "endpoints": [{"addresses": [address], "conditions": {"ready": True}}]}


async def test_each_slice_has_ports_of_its_own() -> None:
    async with KubeApi().serve() as api:
        await api.put(recorded("endpointslice"))
        # A rolling update that moves the port has slices of both; what has no port, or several, is nowhere.
        await api.put(slice_with("moved", {"name": "http", "port": 9000, "protocol": "TCP"}, address="10.1.0.7"))
        await api.put(slice_with("udp", {"name": "http", "port": 9000, "protocol": "UDP"}))
        await api.put(slice_with("all", {"name": "http", "port": None, "protocol": "TCP"}))
        await api.put(slice_with("none"))
        several = slice_with("several", {"port": 9000}, {"name": "api", "port": 9001}, address="10.1.0.8")
        await api.put(several)
        query = Query("endpointslices", "kubernetes.io/service-name=vllm", None, None)
        async with following(Access(api.url), query) as source:
            assert [found.url for found in await source()] == [
                "http://10.1.0.1:8000", "http://10.1.0.3:8000", "http://10.1.0.7:9000",
            ]  # fmt: skip
        async with following(Access(api.url), replace(query, port_name="api")) as source:
            assert [found.url for found in await source()] == ["http://10.1.0.8:9001"]


async def test_a_slice_whose_port_changes_is_other_workers() -> None:
    async with KubeApi().serve() as api:
        await api.put(slice_with("s", {"name": "http", "port": 8000}))
        query = Query("endpointslices", "kubernetes.io/service-name=vllm", "models", None)
        async with following(Access(api.url), query) as source:
            await eventually(lambda: api.watches == 1)
            await api.put(slice_with("s", {"name": "http", "port": 8001}))
            async with asyncio.timeout(30):
                while [found.url for found in await source()] != ["http://10.1.0.9:8001"]:
                    source.changed.clear()
                    await source.changed.wait()


@pytest.mark.parametrize(
    ("settings", "port", "name"),
    [
        ({}, 80, None),
        ({"service_discovery_port": 8000}, 8000, None),
        ({"service_discovery_resource": "endpointslices"}, None, None),
        ({"service_discovery_resource": "endpointslices", "service_discovery_port_name": "api"}, None, "api"),
        ({"service_discovery_port_name": "api"}, "refused", None),
    ],
)
def test_which_port_is_meant(tmp_path: Path, settings: dict[str, Any], port: object, name: str | None) -> None:
    file = tmp_path / "config"
    file.write_text(
        "{current-context: c, contexts: [{name: c, context: {cluster: k, user: u}}], "
        "clusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u, user: {}}]}"
    )
    given = RoutingSettings(service_discovery_selector=("a=b",), service_discovery_kubeconfig=str(file), **settings)
    if port == "refused":
        with pytest.raises(SettingsError, match="port_name"):
            kubernetes(given)
        return
    query = kubernetes(given)._query
    assert (query.port, query.port_name) == (port, name)


async def test_a_token_that_was_replaced_and_the_clusters_own_authority(tmp_path: Path) -> None:
    _, tls = certificate(tmp_path)
    (tmp_path / "ca.crt").write_bytes((tmp_path / "worker.pem").read_bytes())
    (tmp_path / "token").write_text("old\n")
    api = KubeApi()
    api.token = "new"
    async with api.serve(tls):
        await api.put(pod("a", "10.1.0.1"))
        port = api.url.rpartition(":")[2]
        access = in_cluster({"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}, tmp_path)
        async with following(access) as source:
            await eventually(lambda: api.refused > 0)
            (tmp_path / "token").write_text("new\n")
            await comes_to(source, "1")


def test_a_kubeconfig_and_what_is_wrong_with_one(tmp_path: Path) -> None:
    file = tmp_path / "config"
    text = """
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "http://127.0.0.1:1/"}}]
users: [{name: u, user: {tokenFile: token}}]
"""
    file.write_text(text)
    (tmp_path / "token").write_text("t")
    access = by_kubeconfig(file)
    assert (access.server, access.headers()) == ("http://127.0.0.1:1", {"Authorization": "Bearer t"})
    for wrong in (text.replace("name: k", "name: x"), text.replace("tokenFile: token", "exec: {command: x}"), "[]"):
        file.write_text(wrong)
        with pytest.raises(NoAccess):
            by_kubeconfig(file)
    with pytest.raises(NoAccess):
        by_kubeconfig(tmp_path / "none")
    with pytest.raises(NoAccess):
        in_cluster({})


async def test_a_cluster_that_is_away_says_nothing_and_forgets_nothing() -> None:
    source = KubernetesSource(Access("http://127.0.0.1:1"), QUERY, random.Random(7), patience_secs=0.01)
    with pytest.raises(SourceFailed):
        await source()
    async with contextlib.AsyncExitStack() as stack:
        api = KubeApi()
        server = await stack.enter_async_context(contextlib.AsyncExitStack())
        await server.enter_async_context(api.serve())
        await api.put(pod("a", "10.1.0.1"))
        source = await stack.enter_async_context(following(Access(api.url)))
        await comes_to(source, "1")
        await server.aclose()
        await comes_to(source, "1")


async def test_the_fleet_hears_at_once() -> None:
    w = world(**{"10.1.0.1:8000": FakeWorker()})
    fleet = w.fleet(worker_urls=())
    async with KubeApi().serve() as api, following(Access(api.url)) as source:
        discovery = Discovery(source, fleet, w.now, interval_secs=3600, grace_secs=60, changed=source.changed)
        task = asyncio.create_task(discovery.run())
        known: Callable[[], int] = lambda: len(fleet.registry.snapshot.workers)  # noqa: E731
        await eventually(lambda: api.watches == 1)
        await api.put(pod("a", "10.1.0.1"))
        await eventually(lambda: known() == 1)
        await api.delete("a")
        await eventually(lambda: known() == 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_pod_without_an_address_or_a_running_phase_is_nowhere() -> None:
    wrong: list[dict[str, object]] = [{"podIP": ""}, {"phase": "Succeeded"}, {"conditions": []}]
    for status in wrong:
        made = recorded("pod", **status)
        assert msgspec.convert(made, Object).addresses() == {}


def test_labels_have_to_be_named() -> None:
    with pytest.raises(SettingsError):
        kubernetes(RoutingSettings(service_discovery=True))


def test_six_and_events() -> None:
    query = Query("pods", "a=b", None, 8000, 5557)
    found = query.found("fd00::1", 8000)
    assert (found.url, found.kv_events) == ("http://[fd00::1]:8000", "tcp://[fd00::1]:5557")
    assert query.found("gpu-1.models.internal", 8000).url == "http://gpu-1.models.internal:8000"
