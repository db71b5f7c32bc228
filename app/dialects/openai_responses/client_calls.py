"""Calls a client executes that are more than a name and arguments: shells, patches, computers, searches, free text.

The model is offered each as a function, since functions are what every engine knows. Its arguments are the fields of
the item the client expects, so that each is made from the other without loss; the functions are described here, and
`docs/responses.md` shows them.

    shell_call        {"commands": […], "timeout_ms"?, "max_output_length"?}  → action
    local_shell_call  {"command": […], "env"?, "timeout_ms"?, "user"?, "working_directory"?}  → action
    apply_patch_call  {"type": "create_file" | "update_file" | "delete_file", "path", "diff"?}  → operation
    computer_call     {"actions": [{"type": "click", "x", "y", …}, …]}  → actions; action where it is one at a time
    custom_tool_call  {"input": "…"}  → input
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, cast

import msgspec
from msgspec import Raw, Struct

from app.turn.items import ToolKind, ToolSpec

Fields: TypeAlias = Mapping[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_object = msgspec.json.Decoder(dict[str, Any])

_STRINGS = {"type": "array", "items": {"type": "string"}}
_NUMBER = {"type": "integer", "minimum": 0}


def _schema(required: list[str], **properties: Any) -> Raw:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return Raw(_encode(schema))


_ACTIONS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {
                "enum": [
                    *("click", "double_click", "drag", "keypress", "move"),
                    *("screenshot", "scroll", "type", "wait"),
                ]
            },
            "x": {"type": "integer"},
            "y": {"type": "integer"},
            "button": {"enum": ["left", "right", "wheel", "back", "forward"]},
            "scroll_x": {"type": "integer"},
            "scroll_y": {"type": "integer"},
            "keys": _STRINGS,
            "text": {"type": "string"},
            "path": {
                "type": "array",
                "items": {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}},
            },
        },
    },
}

# What the model is offered for a tool that has no name and no schema of its own.
OFFERED: Mapping[ToolKind, ToolSpec] = {
    "shell": ToolSpec(
        name="shell",
        kind="shell",
        description="Run shell commands. Each command is one line for the shell; they run side by side.",
        parameters=_schema(["commands"], commands=_STRINGS, timeout_ms=_NUMBER, max_output_length=_NUMBER),
    ),
    "local_shell": ToolSpec(
        name="local_shell",
        kind="local_shell",
        description='Run one command, given as its arguments, for example ["ls", "-l"].',
        parameters=_schema(
            ["command"],
            command=_STRINGS,
            env={"type": "object", "additionalProperties": {"type": "string"}},
            timeout_ms=_NUMBER,
            user={"type": "string"},
            working_directory={"type": "string"},
        ),
    ),
    "apply_patch": ToolSpec(
        name="apply_patch",
        kind="apply_patch",
        description=(
            "Create, update or delete one file. 'diff' is a V4A diff: for create_file every line begins with '+'; for "
            "update_file lines begin with ' ', '-' or '+', after '@@' and a line that says where. No diff to delete."
        ),
        parameters=_schema(
            ["type", "path"],
            type={"enum": ["create_file", "update_file", "delete_file"]},
            path={"type": "string"},
            diff={"type": "string"},
        ),
    ),
    "computer": ToolSpec(
        name="computer",
        kind="computer",
        description="Use the computer: do these actions one after the other; a screenshot comes back.",
        parameters=_schema(["actions"], actions=_ACTIONS),
    ),
    "computer_use_preview": ToolSpec(
        name="computer",
        kind="computer_use_preview",
        description="Use the computer: do one action; a screenshot comes back.",
        parameters=_schema(["actions"], actions={**_ACTIONS, "maxItems": 1}),
    ),
    "tool_search": ToolSpec(
        name="tool_search",
        kind="tool_search",
        description="Find more tools by what they do. Tools that were found can be called next.",
        parameters=_schema(["query"], query={"type": "string"}),
    ),
    "server_tool_search": ToolSpec(
        name="tool_search",
        kind="server_tool_search",
        description="Find more tools by what they do. Tools that were found can be called next.",
        parameters=_schema(["query"], query={"type": "string"}, limit={"type": "integer", "minimum": 1}),
    ),
}


class ItemKind(Struct, frozen=True):
    """How a call of a kind is shown: the type of its item, and its fields, made from the call's arguments."""

    type: str
    fields: Callable[[Fields], dict[str, Any]]


def _shell(given: Fields) -> dict[str, Any]:
    rest = {name: given.get(name) for name in ("timeout_ms", "max_output_length")}
    return {"action": {"commands": given["commands"], **rest}, "environment": None}


def _local_shell(given: Fields) -> dict[str, Any]:
    rest = {name: given.get(name) for name in ("timeout_ms", "user", "working_directory")}
    return {"action": {"type": "exec", "command": given["command"], "env": given.get("env") or {}, **rest}}


def _apply_patch(given: Fields) -> dict[str, Any]:
    operation = {"type": given["type"], "path": given["path"]}
    return {"operation": operation if given["type"] == "delete_file" else {**operation, "diff": given.get("diff", "")}}


def _computer(given: Fields) -> dict[str, Any]:
    return {"actions": given["actions"], "pending_safety_checks": []}


def _one_action(given: Fields) -> dict[str, Any]:
    return {"action": given["actions"][0], "pending_safety_checks": []}


SHOWN: Mapping[ToolKind, ItemKind] = {
    "shell": ItemKind("shell_call", _shell),
    "local_shell": ItemKind("local_shell_call", _local_shell),
    "apply_patch": ItemKind("apply_patch_call", _apply_patch),
    "computer": ItemKind("computer_call", _computer),
    "computer_use_preview": ItemKind("computer_call", _one_action),
    "tool_search": ItemKind("tool_search_call", lambda given: {"execution": "client", "arguments": given}),
    "server_tool_search": ItemKind("tool_search_call", lambda given: {"execution": "server", "arguments": given}),
}


def fields_of(kind: ToolKind, arguments: str) -> dict[str, Any]:
    """The fields of the item that a call with these arguments is shown as. They fit what the tool was offered with."""
    return SHOWN[kind].fields(_object.decode(arguments))


# ── the way back: items as the calls the model made ───────────────────────────


def call_of(kind: str, item: Fields) -> tuple[str, str] | None:
    """The function's name and arguments of an item of a type in `CALLS`; None for one that says too little."""
    name, arguments = CALLS[kind]
    found = arguments(item)
    return None if found is None else (name, _encode(found).decode())


def _some(given: Fields, *names: str) -> dict[str, Any]:
    return {name: given[name] for name in names if given.get(name) is not None}


def _of_action(*names: str) -> Callable[[Fields], dict[str, Any] | None]:
    def arguments(item: Fields) -> dict[str, Any] | None:
        action = item.get("action")
        return _some(cast("Fields", action), *names) if isinstance(action, dict) else None

    return arguments


def _of_patch(item: Fields) -> dict[str, Any] | None:
    operation = item.get("operation")
    return _some(cast("Fields", operation), "type", "path", "diff") if isinstance(operation, dict) else None


def _of_computer(item: Fields) -> dict[str, Any] | None:
    actions = item.get("actions") or ([item["action"]] if item.get("action") else None)
    return None if actions is None else {"actions": actions}


def _of_search(item: Fields) -> dict[str, Any] | None:
    given = item.get("arguments")
    given = _decode(given) if isinstance(given, str) and given.lstrip().startswith("{") else given
    return cast("dict[str, Any]", given) if isinstance(given, dict) else {"query": given}


CALLS: Mapping[str, tuple[str, Callable[[Fields], dict[str, Any] | None]]] = {
    "shell_call": ("shell", _of_action("commands", "timeout_ms", "max_output_length")),
    "local_shell_call": ("local_shell", _of_action("command", "env", "timeout_ms", "user", "working_directory")),
    "apply_patch_call": ("apply_patch", _of_patch),
    "computer_call": ("computer", _of_computer),
    "tool_search_call": ("tool_search", _of_search),
}


# ── free text ─────────────────────────────────────────────────────────────────

_GRAMMAR = "The input must match this {syntax} grammar:\n{definition}"


def custom_parameters(grammar: Mapping[str, Any] | None) -> Raw:
    """What a custom tool is offered with: one string. A regular expression becomes the string's pattern, which engines
    with structured output enforce; any other grammar is shown to the model in words."""
    text: dict[str, Any] = {"type": "string", "description": "The whole input of the tool, as it is."}
    if grammar is not None:
        syntax, definition = grammar["syntax"], grammar["definition"]
        text["description"] += " " + _GRAMMAR.format(syntax=syntax, definition=definition)
        if syntax == "regex":
            text["pattern"] = f"^(?:{definition})$"
    return _schema(["input"], input=text)


def custom_arguments(text: str) -> str:
    """The arguments that stand for the free text of a custom tool's input."""
    return _encode({"input": text}).decode()


def custom_input(arguments: str) -> str:
    """The free text in a custom tool's arguments. A model that writes no such object means what it wrote."""
    try:
        given = _decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return arguments
    if isinstance(given, str):
        return given
    text = cast("Fields", given).get("input") if isinstance(given, dict) else None
    return text if isinstance(text, str) else arguments


class CustomInput:
    """The free text of a custom tool's input, out of arguments that come in pieces.

    It speaks as soon as it is certain that the arguments are `{"input": "…` and never says what the whole would not:
    a piece that ends within an escape waits for the next.
    """

    def __init__(self) -> None:
        self._seen = ""
        self._state: Literal["before", "inside", "after", "other"] = "before"

    def feed(self, arguments: str) -> str:
        """More arguments; the text that is certain now."""
        self._seen += arguments
        if self._state == "before":
            self._open()
        return self._text() if self._state == "inside" else ""

    def _open(self) -> None:
        position = 0
        for expected in ("{", '"input"', ":", '"'):
            rest = self._seen[position:]
            stripped = rest.lstrip()
            position += len(rest) - len(stripped)
            if not stripped.startswith(expected):
                self._state = "before" if expected.startswith(stripped) else "other"
                return
            position += len(expected)
        self._state, self._seen = "inside", self._seen[position:]

    def _text(self) -> str:
        end = 0
        while end < len(self._seen):
            char = self._seen[end]
            if char == '"':
                self._state = "after"
                break
            width = 1 if char != "\\" else _escape(self._seen[end:])
            if width == 0:
                break
            end += width
        raw, self._seen = self._seen[:end], self._seen[end:]
        try:
            return msgspec.json.decode(f'"{raw}"', type=str) if raw else ""
        except (msgspec.DecodeError, UnicodeEncodeError):
            self._state = "other"
            return ""


def _escape(text: str) -> int:
    """How long the escape at the beginning of `text` is; 0 when it is not complete. Halves of a pair go together."""
    if len(text) < 2:
        return 0
    if text[1] != "u":
        return 2
    if len(text) < 6:
        return 0
    if text[2:4].lower() not in {"d8", "d9", "da", "db"}:
        return 6
    return 12 if len(text) >= 12 else 0
