"""Calls and answers of every kind but the plainest, as the model made and saw them.

To the model each is a function call and its result; `client_calls` knows the arguments. What answers nobody, such as a
search that another service executed, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from app.dialects.openai_responses.client_calls import CALLS, call_of, custom_arguments
from app.dialects.openai_responses.parts import read_parts
from app.dialects.openai_responses.tools import read_tools
from app.dialects.openai_responses.wire import (
    CallOutputItem,
    ClientCallItem,
    ComputerOutputItem,
    CustomCallItem,
    FunctionCallItem,
    HostedCallItem,
    LocalShellOutputItem,
    PatchOutputItem,
    ShellOutput,
    ShellOutputItem,
    ToolsItem,
)
from app.turn.found import found_text
from app.turn.items import Image, Item, Message, Opaque, ToolCall, ToolKind, ToolResult
from app.turn.names import flat

Reader: TypeAlias = Callable[[str, Raw], tuple[Item, ...]]

SCREENSHOT = "The screenshot follows."

# Types of items that a hosted tool's calls are shown as.
HOSTED_ITEMS: Mapping[str, ToolKind] = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",
}

_UNFINISHED = frozenset(("in_progress", "incomplete"))

_function = msgspec.json.Decoder(FunctionCallItem)
_custom = msgspec.json.Decoder(CustomCallItem)
_client = msgspec.json.Decoder(ClientCallItem)
_fields = msgspec.json.Decoder(dict[str, Any])
_output = msgspec.json.Decoder(CallOutputItem)
_local_shell = msgspec.json.Decoder(LocalShellOutputItem)
_shell = msgspec.json.Decoder(ShellOutputItem)
_patch = msgspec.json.Decoder(PatchOutputItem)
_computer = msgspec.json.Decoder(ComputerOutputItem)
_tools = msgspec.json.Decoder(ToolsItem)
_hosted = msgspec.json.Decoder(HostedCallItem)


def _function_call(_kind: str, raw: Raw) -> tuple[Item, ...]:
    item = _function.decode(raw)
    if item.status in _UNFINISHED:
        return ()
    own = None if item.namespace is None else item.name
    name = flat(item.namespace, item.name)
    return (ToolCall(item.call_id, name, item.arguments, tool=own, namespace=item.namespace),)


def _custom_call(_kind: str, raw: Raw) -> tuple[Item, ...]:
    item = _custom.decode(raw)
    if item.status in _UNFINISHED:
        return ()
    own = None if item.namespace is None else item.name
    name, arguments = flat(item.namespace, item.name), custom_arguments(item.input)
    return (ToolCall(item.call_id, name, arguments, tool=own, kind="custom", namespace=item.namespace),)


def _client_call(kind: str, raw: Raw) -> tuple[Item, ...]:
    item = _client.decode(raw)
    call = call_of(kind, _fields.decode(raw))
    # A search that another service made has no id that its answer could name.
    call_id = item.call_id or (item.id if kind == "local_shell_call" else None)
    if call is None or call_id is None or item.status in _UNFINISHED:
        return ()
    return (ToolCall(call_id, *call),)


def _call_output(_kind: str, raw: Raw) -> tuple[Item, ...]:
    item = _output.decode(raw)
    return (ToolResult(item.call_id, item.output if isinstance(item.output, str) else read_parts(item.output)),)


def _local_shell_output(_kind: str, raw: Raw) -> tuple[Item, ...]:
    item = _local_shell.decode(raw)
    return (ToolResult(item.call_id or item.id or "", item.output),)


def _shell_output(_kind: str, raw: Raw) -> tuple[Item, ...]:
    item = _shell.decode(raw)
    return (ToolResult(item.call_id, "\n\n".join(map(_printed, item.output))),)


def _printed(output: ShellOutput) -> str:
    outcome = output.outcome
    ended = "" if outcome is None else "timed out" if outcome.type == "timeout" else f"exit code {outcome.exit_code}"
    pieces = [ended, output.stdout, f"stderr:\n{output.stderr}" if output.stderr else ""]
    return "\n".join(piece for piece in pieces if piece)


def _patch_output(_kind: str, raw: Raw) -> tuple[Item, ...]:
    item = _patch.decode(raw)
    return (ToolResult(item.call_id, f"{item.status}: {item.output}" if item.output else item.status),)


def _computer_output(_kind: str, raw: Raw) -> tuple[Item, ...]:
    item = _computer.decode(raw)
    # Engines take text from tools; pictures come from the user.
    shown = () if item.output.image_url is None else (Message("user", (Image(item.output.image_url),)),)
    return (ToolResult(item.call_id, SCREENSHOT), *shown)


def _search_output(_kind: str, raw: Raw) -> tuple[Item, ...]:
    item = _tools.decode(raw)
    return () if item.call_id is None else (ToolResult(item.call_id, found_text(read_tools(item.tools).specs)),)


def _hosted_call(kind: str, raw: Raw) -> tuple[Item, ...]:
    item = _hosted.decode(raw)
    if item.arguments is None or item.output is None:
        return (Opaque(kind, raw),)
    tool = HOSTED_ITEMS[kind]
    name = item.model_call_id or item.id
    return ToolCall(name, tool, item.arguments, kind=tool), ToolResult(name, item.output)


READERS: Mapping[str, Reader] = {
    "function_call": _function_call,
    "custom_tool_call": _custom_call,
    **dict.fromkeys(CALLS, _client_call),
    "function_call_output": _call_output,
    "custom_tool_call_output": _call_output,
    "local_shell_call_output": _local_shell_output,
    "shell_call_output": _shell_output,
    "apply_patch_call_output": _patch_output,
    "computer_call_output": _computer_output,
    "tool_search_output": _search_output,
    **dict.fromkeys(HOSTED_ITEMS, _hosted_call),
}
