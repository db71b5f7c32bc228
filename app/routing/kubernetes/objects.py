"""The parts of pods and EndpointSlices that say where a worker can be reached, and whether it should be.

Shapes: Kubernetes API reference, core/v1 Pod and discovery.k8s.io/v1 EndpointSlice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

Resource: TypeAlias = Literal["pods", "endpointslices"]


class Meta(Struct, frozen=True, rename="camel"):
    """What every object and list has. `resource_version` is opaque; `continue_` asks for a list's next page."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    continue_: str = msgspec.field(default="", name="continue")


class Condition(Struct, frozen=True):
    """One condition of a pod: `Ready` is `True`, `False` or `Unknown`."""

    type: str
    status: str


class PodStatus(Struct, frozen=True, rename="camel"):
    """How a pod is."""

    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    conditions: Sequence[Condition] = ()


class Conditions(Struct, frozen=True):
    """How an endpoint is; what is null is to be read as ready and not terminating."""

    ready: bool | None = None
    terminating: bool | None = None


class Target(Struct, frozen=True):
    """What an endpoint is an address of: a pod, as a rule."""

    uid: str = ""


class Endpoint(Struct, frozen=True, rename="camel"):
    """One endpoint. Its addresses are the same place, so the first one will do."""

    addresses: Sequence[str]
    conditions: Conditions = Conditions()
    target_ref: Target | None = None


class Port(Struct, frozen=True):
    """One port of a slice's endpoints. A port that is null means all of them, and a name that is null is empty."""

    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class Object(Struct, frozen=True, rename="camel"):
    """A pod or an EndpointSlice: each has the fields that the other lacks. A slice's addresses are of one kind."""

    metadata: Meta
    status: PodStatus = PodStatus()
    endpoints: Sequence[Endpoint] | None = None
    ports: Sequence[Port] | None = None
    address_type: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others of its kind."""
        return self.metadata.namespace, self.metadata.name

    def port(self, name: str | None) -> int | None:
        """The TCP port of that name that a slice's endpoints have, or their only one; None where that is not said."""
        spoken = [each for each in self.ports or () if each.protocol in (None, "TCP") and each.port is not None]
        wanted = spoken if name is None else [each for each in spoken if each.name == name]
        return wanted[0].port if len(wanted) == 1 else None

    def addresses(self) -> dict[str, str]:
        """Where it says that turns may be sent now, and whose address each is; empty where that is not said.

        A pod that is not ready, or is being deleted, says nowhere.
        """
        if self.metadata.deletion_timestamp is not None:
            return {}
        if self.endpoints is not None:
            return {
                each.addresses[0]: "" if each.target_ref is None else each.target_ref.uid
                for each in self.endpoints
                if each.addresses and each.conditions.ready is not False and not each.conditions.terminating
            }
        ready = any(each.type == "Ready" and each.status == "True" for each in self.status.conditions)
        there = ready and self.status.phase == "Running" and self.status.pod_ip
        return {self.status.pod_ip: ""} if there else {}


class ObjectList(Struct, frozen=True):
    """A page of a list."""

    metadata: Meta
    items: Sequence[Object]


class Event(Struct, frozen=True):
    """One line of a watch: ADDED, MODIFIED, DELETED and BOOKMARK have an object, ERROR has a status."""

    type: str
    object: msgspec.Raw


class Status(Struct, frozen=True):
    """What the API says of a failure."""

    code: int = 0
    message: str = ""


def path(resource: Resource, namespace: str | None) -> str:
    """Where the API lists `resource`: in one namespace, or in all of them."""
    group = "/api/v1" if resource == "pods" else "/apis/discovery.k8s.io/v1"
    return f"{group}/{resource}" if namespace is None else f"{group}/namespaces/{namespace}/{resource}"


def decode(data: bytes | msgspec.Raw, kind: type[Any]) -> Any:
    """Read `data` as `kind`. Raises `msgspec.MsgspecError`."""
    return msgspec.json.decode(data, type=kind)
