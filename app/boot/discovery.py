"""The places where workers are looked for."""

from __future__ import annotations

import random
from asyncio import Event
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

from app.boot.background import in_background
from app.routing.addresses import worker_url
from app.routing.discovery import Discovery, DnsSource, FileSource, Roster, WorkerSource
from app.routing.kubernetes.access import NoAccess, by_kubeconfig, in_cluster
from app.routing.kubernetes.watch import KubernetesSource, Query
from app.routing.settings import RoutingSettings
from app.settings.sources import SettingsError, environment
from app.turn.errors import InvalidRequest

_POD_PORT = 80


async def discover(settings: RoutingSettings, roster: Roster, stack: AsyncExitStack) -> None:
    """Look once everywhere, and again and again until the stack closes. Raises `SettingsError`."""
    sources: list[tuple[WorkerSource, Event | None]] = []
    if settings.discover_file is not None:
        sources.append((FileSource(Path(settings.discover_file)), None))
    if settings.discover_dns is not None:
        try:
            sources.append((DnsSource(worker_url(settings.discover_dns)), None))
        except InvalidRequest as error:
            raise SettingsError(f"routing.discover_dns: {error.message}") from error
    if settings.service_discovery:
        cluster = kubernetes(settings)
        await in_background(stack, cluster.run(), "watching the cluster")
        sources.append((cluster, cluster.changed))
    for source, changed in sources:
        discovery = Discovery(
            source,
            roster,
            monotonic,
            interval_secs=settings.discover_interval_secs,
            grace_secs=settings.discover_grace_secs,
            changed=changed,
        )
        await discovery.look()
        await in_background(stack, discovery.run(), "discovering workers")


def kubernetes(settings: RoutingSettings) -> KubernetesSource:
    """The cluster that the settings mean. Raises `SettingsError`."""
    if not settings.service_discovery_selector:
        raise SettingsError("routing.service_discovery_selector: without labels every pod would be a worker")
    file = settings.service_discovery_kubeconfig
    try:
        access = in_cluster(environment()) if file is None else by_kubeconfig(Path(file))
    except NoAccess as error:
        raise SettingsError(f"routing.service_discovery: {error}") from error
    of_pods, port, name = (
        settings.service_discovery_resource == "pods",
        settings.service_discovery_port,
        settings.service_discovery_port_name,
    )
    if name is not None and (of_pods or port is not None):
        raise SettingsError("routing.service_discovery_port_name: only EndpointSlices have names for their ports")
    query = Query(
        settings.service_discovery_resource,
        ",".join(settings.service_discovery_selector),
        settings.service_discovery_namespace,
        _POD_PORT if of_pods and port is None else port,
        settings.service_discovery_kv_port,
        name,
    )
    return KubernetesSource(access, query, random.Random())  # noqa: S311 - it spreads retries, it keeps no secrets
