"""Whether the process is alive, and whether it wants traffic."""

from __future__ import annotations

from typing import Literal

from litestar import HttpMethod, Response, Router, route
from litestar.di import NamedDependency
from msgspec import Struct

from app.api.services import Services

_METHODS = [HttpMethod.GET, HttpMethod.HEAD]


class Alive(Struct, frozen=True):
    """It answers."""

    status: Literal["ok"] = "ok"


class Readiness(Struct, frozen=True):
    """Whether to send requests here, and why not."""

    status: Literal["ready", "draining", "no_healthy_worker"]
    healthy_workers: int
    workers: int
    runs: int


@route(["/health", "/liveness"], http_method=_METHODS, summary="Is the process alive?", sync_to_thread=False)
def alive() -> Alive:
    """200 as long as the process answers at all."""
    return Alive()


@route("/readiness", http_method=_METHODS, summary="Does it want traffic?", sync_to_thread=False)
def ready(services: NamedDependency[Services]) -> Response[Readiness]:
    """200 when requests are welcome, 503 while draining or without a healthy worker."""
    now = services.status()
    state = "draining" if now.draining else "ready" if now.healthy_workers else "no_healthy_worker"
    view = Readiness(state, now.healthy_workers, now.workers, now.runs)
    return Response(view, status_code=200 if state == "ready" else 503)


def router() -> Router:
    """The probes."""
    return Router("/", route_handlers=[alive, ready], tags=["Health"])
