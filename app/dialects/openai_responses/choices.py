"""`tool_choice`: what the model must, may or must not call."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from app.dialects.openai_responses import not_yet
from app.dialects.openai_responses.faults import absent, read, wrong
from app.dialects.openai_responses.local_tools import EXECUTED_BY_CLIENT
from app.dialects.openai_responses.tools import HOSTED, Tools
from app.dialects.openai_responses.wire import NULL, ChoiceBody, ChosenTool, CreateResponse
from app.turn.items import ToolSpec
from app.turn.names import flat
from app.turn.request import AllowedTools, NamedTool, ToolChoice, ToolRef

Choice: TypeAlias = tuple[ToolChoice, AllowedTools | None]

_MODES: dict[str, ToolChoice] = {"none": "none", "auto": "auto", "required": "required"}

_choice = msgspec.json.Decoder(str | ChoiceBody)


def tool_choice(request: CreateResponse, tools: Tools) -> Choice:
    """The request's choice among `tools`: what engines are told, and what is held against every call.

    Raises `InvalidRequest` for a choice that cannot be made.
    """
    if request.tool_choice == NULL:
        return "auto", None
    choice = read(_choice, request.tool_choice, "tool_choice")
    if isinstance(choice, str):
        if choice not in _MODES:
            raise wrong("tool_choice", "one of none, auto, required, or an object is expected.")
        if choice == "required" and not (tools.specs or tools.servers or tools.hosted):
            raise wrong("tool_choice", "'required' needs 'tools' to choose from.")
        return _MODES[choice], None
    if choice.type == "allowed_tools":
        return choice.mode, _allowed(choice, tools)
    chosen = ChosenTool(
        type=choice.type, name=choice.name, namespace=choice.namespace, server_label=choice.server_label
    )
    ref = _ref(chosen, "tool_choice", tools)
    if ref.server_label is not None:
        return "required", AllowedTools((ref,), lasting=False)
    assert ref.name is not None
    if any(spec.name == ref.name and spec.deferred for spec in tools.specs):
        raise wrong("tool_choice.name", "the tool has 'defer_loading', and the model does not see it yet.")
    return NamedTool(ref.name), None


def _allowed(choice: ChoiceBody, tools: Tools) -> AllowedTools:
    if not choice.tools:
        raise absent("tool_choice.tools")
    return AllowedTools(
        tuple(_ref(tool, f"tool_choice.tools[{index}]", tools) for index, tool in enumerate(choice.tools))
    )


def _ref(chosen: ChosenTool, path: str, tools: Tools) -> ToolRef:
    match chosen.type:
        case "function" | "custom":
            return ToolRef(_named(chosen, path, tools).name)
        case "mcp":
            if chosen.server_label is None:
                raise absent(f"{path}.server_label")
            if all(server.label != chosen.server_label for server in tools.servers):
                raise wrong(f"{path}.server_label", f"there is no MCP server labelled '{chosen.server_label}'.")
            return ToolRef(chosen.name, chosen.server_label)
        case kind if kind in HOSTED:
            if all(hosted.kind != HOSTED[kind] for hosted in tools.hosted):
                raise wrong(f"{path}.type", f"there is no tool of type '{kind}'.")
            return ToolRef(HOSTED[kind])
        case kind if kind in EXECUTED_BY_CLIENT or kind == "tool_search":
            meant = EXECUTED_BY_CLIENT.get(kind, kind)
            spec = next((spec for spec in tools.specs if spec.kind.removeprefix("server_") == meant), None)
            if spec is None:
                raise wrong(f"{path}.type", f"there is no tool of type '{kind}'.")
            return ToolRef(spec.name)
        case kind:
            raise not_yet.refuse(f"{path}.type", f"Tools of type '{kind[:64]}' cannot be chosen.")


def _named(chosen: ChosenTool, path: str, tools: Tools) -> ToolSpec:
    if chosen.name is None:
        raise absent(f"{path}.name")
    name = flat(chosen.namespace, chosen.name)
    for spec in tools.specs:
        if spec.kind == chosen.type and name in {spec.name, spec.tool if chosen.namespace is None else None}:
            return spec
    raise wrong(f"{path}.name", f"there is no {chosen.type} named '{chosen.name}' among the tools.")
