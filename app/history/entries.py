"""Entries of a run's log as bytes, and the statements that write and read them.

An entry is one line of JSON with its steps, then one line for each event, which is the event exactly as it was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct, structs
from sqlalchemy import BindParameter, bindparam, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql import Select

from app.db.prepared import Prepared
from app.dialects.openai_responses.events import Event, encode
from app.history.tables import entries, runs
from app.responses.ports import Entry
from app.turn.events import (
    Abort,
    ApprovalOpened,
    CallDelta,
    Cancel,
    Elicited,
    InEvent,
    ItemDone,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Steered,
    TextDelta,
    ToolReturned,
    ToolsListed,
    TurnDone,
    TurnFailed,
)
from app.turn.items import Terms, ToolError, ToolKind, ToolSpec

_NULL: Final = Raw(b"null")


# msgspec cannot decode `Raw | None`, so steps that hold one are read through these.
class _TextDelta(Struct, frozen=True, tag="text_delta"):
    text: str
    logprobs: Raw = _NULL

    def step(self) -> InEvent:
        return TextDelta(self.text, _given(self.logprobs))


class _ToolSpec(Struct, frozen=True):
    name: str
    parameters: Raw
    description: str | None = None
    strict: bool | None = None
    server_label: str | None = None
    tool: str | None = None
    annotations: Raw = _NULL
    approval: Literal["never", "ask"] = "never"
    terms: Terms | None = None
    kind: ToolKind = "function"
    namespace: str | None = None
    deferred: bool = False
    grammar: Raw = _NULL

    def spec(self) -> ToolSpec:
        fields: dict[str, Any] = structs.asdict(self)
        for name in ("annotations", "grammar"):
            fields[name] = _given(fields[name])
        fields["parameters"] = self.parameters.copy()
        return ToolSpec(**fields)


class _ToolsListed(Struct, frozen=True, tag="tools_listed"):
    server_label: str
    tools: tuple[_ToolSpec, ...] = ()
    error: ToolError | None = None

    def step(self) -> InEvent:
        return ToolsListed(self.server_label, tuple(tool.spec() for tool in self.tools), self.error)


_Step: TypeAlias = (
    _TextDelta
    | _ToolsListed
    | RefusalDelta
    | ReasoningDelta
    | CallDelta
    | ItemDone
    | TurnDone
    | TurnFailed
    | ToolReturned
    | ApprovalOpened
    | Elicited
    | Steered
    | Cancel
    | Abort
    | Resumed
)

_steps = msgspec.json.Decoder(tuple[_Step, ...])
_encode = msgspec.json.Encoder().encode


class _Head(Struct, frozen=True):
    type: str
    sequence_number: int


_head = msgspec.json.Decoder(_Head)


def pack(entry: Entry) -> bytes:
    """The entry as bytes."""
    return b"\n".join([_line(entry.steps), *[event.data for event in entry.events]])


def unpack(data: bytes) -> Entry:
    """The entry in `data`."""
    first, *lines = data.split(b"\n")
    steps = [step.step() if isinstance(step, _TextDelta | _ToolsListed) else step for step in _steps.decode(first)]
    return Entry(tuple(steps), tuple(_event(line) for line in lines))


def place(response_id: str, position: int) -> str:
    """Where a sealed entry is kept."""
    return f"entries/{response_id}/{position}"


def _given(raw: Raw) -> Raw | None:
    return None if bytes(raw) == b"null" else raw.copy()


def _line(steps: Sequence[InEvent]) -> bytes:
    try:
        line = _encode(steps)
    except UnicodeEncodeError:
        # A model may say half a surrogate pair, which no JSON can.
        line = encode(msgspec.to_builtins(steps, builtin_types=(Raw,)))
    return msgspec.json.format(line, indent=-1) if b"\n" in line else line


def _event(line: bytes) -> Event:
    head = _head.decode(line)
    return Event(head.sequence_number, head.type, line)


_TENANT: Final[BindParameter[str]] = bindparam("tenant")
_RESPONSE: Final[BindParameter[str]] = bindparam("response")

ENTRIES: Final[Select[Any, Any, Any]] = (
    select(entries.c.position, entries.c.sequence_number, entries.c.body)
    .where(
        entries.c.tenant == _TENANT,
        entries.c.response_id == _RESPONSE,
        entries.c.position > bindparam("position"),
        entries.c.sequence_number > bindparam("after"),
    )
    .order_by(entries.c.position)
    .limit(bindparam("limit"))
)

BEING_MADE: Final[Select[str]] = select(runs.c.id).where(runs.c.tenant == _TENANT, runs.c.id == _RESPONSE)

# None: there are no entries.
LAST: Final[Select[int | None]] = select(func.max(entries.c.sequence_number)).where(
    entries.c.tenant == _TENANT, entries.c.response_id == _RESPONSE
)

AT: Final[Select[Any]] = select(entries.c.position).where(
    entries.c.tenant == _TENANT, entries.c.response_id == _RESPONSE, entries.c.position == bindparam("at")
)

ADD_ENTRY: Final = Prepared(insert(entries), entries.c.keys())


def add_entries(*, is_sqlite: bool) -> Prepared:
    """Adds entries, and does nothing about one that is there: then it is the same one, written by the same owner."""
    add = sqlite.insert(entries) if is_sqlite else postgresql.insert(entries)
    return Prepared(add.on_conflict_do_nothing(), entries.c.keys())
