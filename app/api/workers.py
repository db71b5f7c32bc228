"""`/workers` and `/routing/policy`: the fleet, looked at and changed while it runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
from litestar import Router, delete, get, patch, post, put
from litestar.di import Provide
from litestar.params import FromPath, QueryParameter
from msgspec import Meta, Struct

from app.routing.admin import FleetAdmin, PolicyView, WorkerView
from app.routing.settings import PolicyName


class WorkerList(Struct, frozen=True):
    """All workers."""

    workers: list[WorkerView]
    total: int


class NewWorker(Struct, frozen=True, forbid_unknown_fields=True):
    """A worker to add. `kv_events` is where its engine publishes cache events, `tcp://host:port`."""

    url: Annotated[str, Meta(description="Base URL, e.g. http://10.0.0.7:8000.")]
    api_key: str | None = None
    kv_events: str | None = None


class WorkerChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be different; what is left out stays."""

    draining: bool | None = None
    api_key: str | None = None


class PolicyChange(Struct, frozen=True, forbid_unknown_fields=True):
    """How workers are to be chosen from now on; null for a model makes it like the others."""

    policy: PolicyName | None = None
    models: dict[str, PolicyName | None] = msgspec.field(default_factory=dict[str, PolicyName | None])


Admin = FleetAdmin


@get("/", operation_id="listWorkers", summary="List the workers", sync_to_thread=False)
def list_workers(admin: Admin, model: Annotated[str | None, QueryParameter()] = None) -> WorkerList:
    """All workers, or those that may serve `model`."""
    found = admin.workers(model)
    return WorkerList(found, len(found))


@post("/", operation_id="addWorker", summary="Add a worker", status_code=201)
async def add_worker(admin: Admin, data: NewWorker) -> WorkerView:
    """The worker is probed at once, and used when it is healthy."""
    return await admin.add(data.url, data.api_key, data.kv_events)


# A URL has slashes, hence a path.
@get("/{name:path}", operation_id="getWorker", summary="Read one worker", sync_to_thread=False)
def get_worker(admin: Admin, name: FromPath[str]) -> WorkerView:
    """By id or URL."""
    return admin.worker(_named(name))


@put("/{name:path}", operation_id="replaceWorker", summary="Drain a worker or take it back", sync_to_thread=False)
def put_worker(admin: Admin, name: FromPath[str], data: WorkerChange) -> WorkerView:
    """Turns that are under way are not touched."""
    return admin.update(_named(name), draining=data.draining, api_key=data.api_key)


@patch("/{name:path}", operation_id="updateWorker", summary="Drain a worker or take it back", sync_to_thread=False)
def patch_worker(admin: Admin, name: FromPath[str], data: WorkerChange) -> WorkerView:
    """The same as PUT."""
    return admin.update(_named(name), draining=data.draining, api_key=data.api_key)


@delete("/{name:path}", operation_id="removeWorker", summary="Forget a worker", status_code=200, sync_to_thread=False)
def remove_worker(admin: Admin, name: FromPath[str]) -> WorkerView:
    """Turns that are under way go on."""
    return admin.remove(_named(name))


@get("/routing/policy", operation_id="getPolicy", summary="Read how workers are chosen", sync_to_thread=False)
def get_policy(admin: Admin) -> PolicyView:
    """For all models, and for single ones."""
    return admin.policy()


@put("/routing/policy", operation_id="setPolicy", summary="Change how workers are chosen", sync_to_thread=False)
def put_policy(admin: Admin, data: PolicyChange) -> PolicyView:
    """It holds until the server ends; settings are not changed."""
    return admin.set_policy(data.policy, data.models)


def _named(path: str) -> str:
    """The worker's name in a path, where two slashes in a row have become one."""
    return re.sub(r"^(https?:)/+", r"\1//", str(path).lstrip("/"))


def routers(fleet: FleetAdmin | None) -> Sequence[Router]:
    """The handlers of the fleet; none where it cannot be changed from outside."""
    if fleet is None:
        return ()
    handlers = [list_workers, add_worker, get_worker, put_worker, patch_worker, remove_worker]
    return (
        Router(
            "/",
            route_handlers=[Router("/workers", route_handlers=handlers), get_policy, put_policy],
            dependencies={"admin": Provide(lambda: fleet, sync_to_thread=False)},
            tags=["Workers"],
        ),
    )
