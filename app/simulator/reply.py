"""What the simulated model says in one turn, as a value."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class Call(Struct, frozen=True):
    """A tool the model calls. `arguments` is the text it writes, JSON or not."""

    name: str
    arguments: str


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong with an answer. Counts are of chunks of the answer; nothing set: nothing goes wrong."""

    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    retry_after_secs: int | None = None
    hang: bool = False
    cut_after: Annotated[int, Meta(ge=0)] | None = None
    hang_after: Annotated[int, Meta(ge=0)] | None = None
    error_after: Annotated[int, Meta(ge=0)] | None = None
    garbage_after: Annotated[int, Meta(ge=0)] | None = None
    bad_arguments: Literal["false", "list", "broken"] | None = None


class Reply(Struct, frozen=True):
    """One answer: thoughts, then text, then calls. `fault` overrides the worker's own faults."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    reasoning: str = ""
    fault: Fault | None = None
