"""Tools that work where the client is, as the client says they are there: with which skills, and on what screen.

The engine is told in the tool's description, since a function has no other place for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct, structs

from app.dialects.openai_responses import not_yet
from app.dialects.openai_responses.client_calls import OFFERED
from app.dialects.openai_responses.faults import read
from app.dialects.openai_responses.wire import Head
from app.turn.items import ToolKind, ToolSpec

EXECUTED_BY_CLIENT: Mapping[str, ToolKind] = {
    "shell": "shell",
    "local_shell": "local_shell",
    "apply_patch": "apply_patch",
    "computer": "computer",
    "computer_use": "computer",
    "computer_use_preview": "computer_use_preview",
}


class Skill(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a shell's user has written down about something, and where."""

    name: str
    description: str
    path: str


class LocalEnvironment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A shell's surroundings, where the client is."""

    type: Literal["local"]
    skills: list[Skill] | None = None


class ShellToolBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`type: shell`."""

    type: str
    environment: LocalEnvironment | None = None
    allowed_callers: list[str] | None = None


class ScreenToolBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`type: computer_use_preview`. Sizes are in pixels."""

    type: str
    display_width: Annotated[int, Meta(ge=1)] | None = None
    display_height: Annotated[int, Meta(ge=1)] | None = None
    environment: Literal["windows", "mac", "linux", "ubuntu", "browser"] | None = None
    allowed_callers: list[str] | None = None


class LocalToolBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool of the client's that is named by its type alone: a computer, patches, the older shell."""

    type: str
    allowed_callers: list[str] | None = None


_LOCAL: msgspec.json.Decoder[Any] = msgspec.json.Decoder(LocalToolBody)
_BODIES: Mapping[str, msgspec.json.Decoder[Any]] = {
    "shell": msgspec.json.Decoder(ShellToolBody),
    "computer_use_preview": msgspec.json.Decoder(ScreenToolBody),
}
_fields = msgspec.json.Decoder(dict[str, Raw])
_where = msgspec.json.Decoder(Head)


def local_tool(kind: str, raw: Raw, path: str) -> ToolSpec:
    """The tool of type `kind` at `path` of the request. Raises `InvalidRequest`."""
    if kind == "shell":
        _check_place(raw, path)
    body = read(_BODIES.get(kind, _LOCAL), raw, path)
    not_yet.check(body, not_yet.PLAIN_TOOL, f"{path}.")
    spec = OFFERED[EXECUTED_BY_CLIENT[kind]]
    more = _skills(body) if isinstance(body, ShellToolBody) else _screen(body)
    return structs.replace(spec, description=f"{spec.description}{more}") if more else spec


def _check_place(raw: Raw, path: str) -> None:
    """An environment elsewhere is refused as what it is, whatever else is said about it."""
    fields = read(_fields, raw, path)
    given = fields.get("environment", Raw(b"null"))
    if bytes(given).lstrip()[:1] == b"{" and read(_where, given, f"{path}.environment").type not in {"local", None}:
        raise not_yet.refuse(f"{path}.environment.type", "Shells run where the client is: use 'local'.")


def _skills(body: ShellToolBody) -> str:
    found = [] if body.environment is None else body.environment.skills or []
    if not found:
        return ""
    listed = "\n".join(f"- {skill.name} in {skill.path}: {skill.description}" for skill in found)
    return f"\nThese skills are there; what one is about is in the SKILL.md of its directory:\n{listed}"


def _screen(body: Any) -> str:
    if not isinstance(body, ScreenToolBody):
        return ""
    size = (body.display_width, body.display_height)
    pixels = "" if None in size else f" Its screen is {size[0]} pixels wide and {size[1]} high."
    return pixels if body.environment is None else f"{pixels} It is of the kind '{body.environment}'."
