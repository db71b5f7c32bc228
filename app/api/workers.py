"""`/workers` and `/routing/policy`: the fleet, looked at and changed while it runs.

Paths, bodies and answers are those of SMG's `/workers`, as far as there is something behind them; errors have the form
they have everywhere here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from litestar import Request, Response, Router, delete, get, patch, post, put
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, QueryParameter
from msgspec import UNSET, Struct, UnsetType

from app.api.body import read_as
from app.routing.admin import FleetAdmin, PolicyView, WorkerChange, WorkerSpec, WorkerView
from app.routing.settings import PolicyName


class Stats(Struct, frozen=True):
    """How many workers there are of each kind; all read prompts and write answers."""

    prefill_count: int
    decode_count: int
    regular_count: int


class WorkerList(Struct, frozen=True):
    """All workers."""

    workers: list[WorkerView]
    total: int
    stats: Stats


class Accepted(Struct, frozen=True, kw_only=True):
    """The request is understood and what it asks for is under way."""

    status: Literal["accepted"] = "accepted"
    worker_id: str
    url: str
    location: str | UnsetType = UNSET
    message: str


class PolicyChange(Struct, frozen=True, forbid_unknown_fields=True):
    """How workers are to be chosen from now on; null for a model makes it like the others."""

    policy: PolicyName | None = None
    models: dict[str, PolicyName | None] = msgspec.field(default_factory=dict[str, PolicyName | None])


_spec = msgspec.json.Decoder(WorkerSpec)
_change = msgspec.json.Decoder(WorkerChange)
_choice = msgspec.json.Decoder(PolicyChange)

Admin = NamedDependency[FleetAdmin]
Asking = Request[None, None, State]


@get("/", operation_id="listWorkers", summary="List the workers", sync_to_thread=False)
def list_workers(admin: Admin, model: Annotated[str | None, QueryParameter()] = None) -> WorkerList:
    """All workers, or those that may serve `model`."""
    found = admin.workers(model)
    return WorkerList(found, len(found), Stats(0, 0, len(found)))


@post("/", operation_id="addWorker", summary="Add a worker", status_code=202)
async def add_worker(request: Asking, admin: Admin) -> Response[Accepted]:
    """The worker is probed at once, and used when it is healthy; its `location` says how far that is."""
    view = admin.add(await read_as(request, _spec))
    location = f"/workers/{view.id}"
    made = Accepted(worker_id=view.id, url=view.url, location=location, message="The worker is being probed.")
    return Response(made, status_code=202, headers={"location": location})


# A URL has slashes, hence a path.
@get("/{name:path}", operation_id="getWorker", summary="Read one worker", sync_to_thread=False)
def get_worker(admin: Admin, name: FromPath[str]) -> WorkerView:
    """By id or URL."""
    return admin.worker(_named(name))


@put("/{name:path}", operation_id="replaceWorker", summary="Say anew what a worker is", status_code=202)
async def put_worker(request: Asking, admin: Admin, name: FromPath[str]) -> Accepted:
    """What is left out is as for a worker that is added. Turns that are under way are not touched."""
    spec = await read_as(request, _spec)
    return _accepted(admin.replace(_named(name), spec), "The worker is replaced.")


@patch("/{name:path}", operation_id="updateWorker", summary="Drain a worker or take it back", status_code=202)
async def patch_worker(request: Asking, admin: Admin, name: FromPath[str]) -> Accepted:
    """What is left out stays. Turns that are under way are not touched."""
    change = await read_as(request, _change)
    return _accepted(admin.update(_named(name), change), "The worker is updated.")


@delete("/{name:path}", operation_id="removeWorker", summary="Forget a worker", status_code=202, sync_to_thread=False)
def remove_worker(admin: Admin, name: FromPath[str]) -> Accepted:
    """Turns that are under way go on."""
    return _accepted(admin.remove(_named(name)), "The worker is forgotten; turns it has go on.")


@get("/routing/policy", operation_id="getPolicy", summary="Read how workers are chosen", sync_to_thread=False)
def get_policy(admin: Admin) -> PolicyView:
    """For all models, and for single ones."""
    return admin.policy()


@put("/routing/policy", operation_id="setPolicy", summary="Change how workers are chosen")
async def put_policy(request: Asking, admin: Admin) -> PolicyView:
    """It holds until the server ends; settings are not changed."""
    change = await read_as(request, _choice)
    return admin.set_policy(change.policy, change.models)


def _accepted(view: WorkerView, message: str) -> Accepted:
    return Accepted(worker_id=view.id, url=view.url, message=message)


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
