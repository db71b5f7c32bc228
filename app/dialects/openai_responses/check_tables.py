"""What a legal stream is made of, as tables: every event and its fields, every kind of item and what it may say.

`check` walks them. The order of an item's events is a small automaton: state → event → next state, beginning at `""`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from msgspec import Struct

Fields: TypeAlias = Mapping[str, type]
Steps: TypeAlias = Mapping[str, Mapping[str, str]]

# ── events and their fields ───────────────────────────────────────────────────

_RESPONSE: Fields = {"response": dict}
_ITEM: Fields = {"output_index": int, "item": dict}
_OF_ITEM: Fields = {"item_id": str, "output_index": int}
_OF_PART: Fields = {**_OF_ITEM, "content_index": int}
_OF_SUMMARY: Fields = {**_OF_ITEM, "summary_index": int}
_OF_COMMAND: Fields = {"output_index": int, "command_index": int}
_IMAGE: Fields = {**_OF_ITEM, "partial_image_b64": str, "partial_image_index": int}

LIFECYCLE: Mapping[str, str] = {
    "response.created": "",
    "response.queued": "queued",
    "response.in_progress": "in_progress",
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}
TERMINAL = frozenset(("response.completed", "response.incomplete", "response.failed"))

_STATUS_EVENTS = (
    *(f"mcp_list_tools.{step}" for step in ("in_progress", "completed", "failed")),
    *(f"mcp_call.{step}" for step in ("in_progress", "completed", "failed")),
    *(f"file_search_call.{step}" for step in ("in_progress", "searching", "completed")),
    *(f"web_search_call.{step}" for step in ("in_progress", "searching", "completed")),
    *(f"code_interpreter_call.{step}" for step in ("in_progress", "interpreting", "completed")),
    *(f"image_generation_call.{step}" for step in ("in_progress", "generating", "completed")),
    "compaction.compacting",
)

EVENTS: Mapping[str, Fields] = {
    "keepalive": {},
    "error": {},
    **dict.fromkeys(LIFECYCLE, _RESPONSE),
    "response.output_item.added": _ITEM,
    "response.output_item.done": _ITEM,
    "response.content_part.added": {**_OF_PART, "part": dict},
    "response.content_part.done": {**_OF_PART, "part": dict},
    "response.output_text.delta": {**_OF_PART, "delta": str, "logprobs": list},
    "response.output_text.done": {**_OF_PART, "text": str, "logprobs": list},
    "response.output_text.annotation.added": {**_OF_PART, "annotation_index": int, "annotation": dict},
    "response.refusal.delta": {**_OF_PART, "delta": str},
    "response.refusal.done": {**_OF_PART, "refusal": str},
    "response.reasoning_text.delta": {**_OF_PART, "delta": str},
    "response.reasoning_text.done": {**_OF_PART, "text": str},
    "response.reasoning.delta": {**_OF_PART, "delta": str},
    "response.reasoning.done": {**_OF_PART, "text": str},
    "response.reasoning_summary_part.added": {**_OF_SUMMARY, "part": dict},
    "response.reasoning_summary_part.done": {**_OF_SUMMARY, "part": dict},
    "response.reasoning_summary_text.delta": {**_OF_SUMMARY, "delta": str},
    "response.reasoning_summary_text.done": {**_OF_SUMMARY, "text": str},
    "response.function_call_arguments.delta": {**_OF_ITEM, "delta": str},
    "response.function_call_arguments.done": {**_OF_ITEM, "arguments": str},
    "response.custom_tool_call_input.delta": {**_OF_ITEM, "delta": str},
    "response.custom_tool_call_input.done": {**_OF_ITEM, "input": str},
    "response.mcp_call_arguments.delta": {**_OF_ITEM, "delta": str},
    "response.mcp_call_arguments.done": {**_OF_ITEM, "arguments": str},
    "response.code_interpreter_call_code.delta": {**_OF_ITEM, "delta": str},
    "response.code_interpreter_call_code.done": {**_OF_ITEM, "code": str},
    "response.image_generation_call.partial_image": _IMAGE,
    "response.shell_call_command.added": {**_OF_COMMAND, "command": str},
    "response.shell_call_command.delta": {**_OF_COMMAND, "delta": str},
    "response.shell_call_command.done": {**_OF_COMMAND, "command": str},
    "response.shell_call_output_content.delta": {**_OF_ITEM, "command_index": int, "delta": dict},
    "response.shell_call_output_content.done": {**_OF_ITEM, "command_index": int, "output": list},
    **{f"response.{name}": _OF_ITEM for name in _STATUS_EVENTS},
}

# The names of the other contract. What has no entry is spoken in both.
FOREIGN: Mapping[str, frozenset[str]] = {
    "openai": frozenset(("response.reasoning.delta", "response.reasoning.done")),
    "openresponses": frozenset(("response.reasoning_text.delta", "response.reasoning_text.done")),
}

# ── the response object ───────────────────────────────────────────────────────

_OPENAI_KEYS = "id object created_at status model output parallel_tool_calls tool_choice tools"
_OPEN_KEYS = """
    completed_at incomplete_details previous_response_id instructions error truncation text top_p presence_penalty
    frequency_penalty top_logprobs temperature reasoning usage max_output_tokens max_tool_calls store background
    service_tier metadata safety_identifier prompt_cache_key
"""
RESPONSE_KEYS: Mapping[str, tuple[str, ...]] = {
    "openai": tuple(_OPENAI_KEYS.split()),
    "openresponses": (*_OPENAI_KEYS.split(), *_OPEN_KEYS.split()),
}

# ── texts that come in pieces ─────────────────────────────────────────────────


class Pieces(Struct, frozen=True):
    """A text: the event with a piece of it, the event with all of it, and the field of that (and of the item or part)
    it is in."""

    delta: str
    done: str
    field: str


def _pieces(name: str, field: str) -> Pieces:
    return Pieces(f"response.{name}.delta", f"response.{name}.done", field)


# ── parts ─────────────────────────────────────────────────────────────────────


class PartKind(Struct, frozen=True):
    """A kind of part: its texts under either contract, and what else may come among the pieces."""

    texts: tuple[Pieces, ...]
    among: frozenset[str] = frozenset()


PARTS: Mapping[str, PartKind] = {
    "output_text": PartKind((_pieces("output_text", "text"),), frozenset(("response.output_text.annotation.added",))),
    "refusal": PartKind((_pieces("refusal", "refusal"),)),
    "reasoning_text": PartKind((_pieces("reasoning_text", "text"), _pieces("reasoning", "text"))),
    "summary_text": PartKind((_pieces("reasoning_summary_text", "text"),)),
}


class Track(Struct, frozen=True):
    """A list of an item's that is written part by part: the field it becomes, and the kinds of parts it may hold."""

    field: str
    index: str
    parts: frozenset[str]


_ADDED, _DONE = "added", "done"
TRACK_EVENTS: Mapping[str, tuple[str, str]] = {
    "response.content_part.added": ("content_index", _ADDED),
    "response.content_part.done": ("content_index", _DONE),
    "response.reasoning_summary_part.added": ("summary_index", _ADDED),
    "response.reasoning_summary_part.done": ("summary_index", _DONE),
}

# ── items ─────────────────────────────────────────────────────────────────────

_S3 = frozenset(("completed", "incomplete"))
_WITH_FAILED = frozenset(("completed", "incomplete", "failed"))
_UNDONE = frozenset(("incomplete", "failed"))
_COMPLETED = frozenset(("completed",))
_ANY: frozenset[str] = frozenset()

NO_FIELDS: Fields = {}
NO_STEPS: Steps = {"": {}}
ENDS_AS_IT_BEGAN: Mapping[str, frozenset[str]] = {"": _ANY}


class Kind(NamedTuple):
    """A kind of item.

    `fields` it has from the beginning, `late` ones when it is done. `states` are those it may end in; empty: it has
    none. `steps` is the order of its own events; `ends` says in which step it may end, and with which states (empty:
    any). `text` is what it says in pieces, `tracks` its lists of parts. `at_once`: nothing comes between its events.
    """

    fields: Fields = NO_FIELDS
    late: Fields = NO_FIELDS
    states: frozenset[str] = _ANY
    steps: Steps = NO_STEPS
    ends: Mapping[str, frozenset[str]] = ENDS_AS_IT_BEGAN
    text: Pieces | None = None
    tracks: tuple[Track, ...] = ()
    at_once: bool = False


def _said(text: Pieces, **more: Any) -> Kind:
    """An item that is one text and nothing else."""
    steps = {"": {text.delta: "", text.done: "said"}, "said": {}}
    return Kind(text=text, steps=steps, ends={"said": _ANY}, **more)


def _hosted(name: str, *between: str, late: Fields, text: Pieces | None = None) -> Kind:
    """A tool that runs at the server: its steps in order, where those that end in `*` may be many or none."""
    steps: dict[str, dict[str, str]] = {}
    here = ""
    for step in (f"response.{name}.in_progress", *between, f"response.{name}.completed"):
        leaving = steps.setdefault(here, {})
        if step.endswith("*"):
            leaving[step[:-1]] = here
        else:
            leaving[step] = here = step
    steps[here] = {}
    ends = {state: _COMPLETED if state == here else _UNDONE for state in steps}
    return Kind(states=_WITH_FAILED, steps=steps, ends=ends, late=late, text=text)


_ARGUMENTS = _pieces("function_call_arguments", "arguments")
_MCP_ARGUMENTS = _pieces("mcp_call_arguments", "arguments")
_CODE = _pieces("code_interpreter_call_code", "code")
_CALL: Fields = {"call_id": str, "name": str}
_MCP_CALL: Fields = {"server_label": str, "name": str, "arguments": str}
_STATUS: Fields = {"status": str}

_MCP_CALL_STEPS: Steps = {
    "": {"response.mcp_call.in_progress": "begun"},
    "begun": {_MCP_ARGUMENTS.delta: "begun", _MCP_ARGUMENTS.done: "said"},
    "said": {"response.mcp_call.completed": "completed", "response.mcp_call.failed": "failed"},
    "completed": {},
    "failed": {},
}
_MCP_LIST_STEPS: Steps = {
    "": {"response.mcp_list_tools.in_progress": "asked"},
    "asked": {"response.mcp_list_tools.completed": "completed", "response.mcp_list_tools.failed": "failed"},
    "completed": {},
    "failed": {},
}
_COMMAND_STEPS: Steps = {"": {f"response.shell_call_command.{step}": "" for step in ("added", "delta", "done")}}
_OUTPUT_STEPS: Steps = {"": {f"response.shell_call_output_content.{step}": "" for step in ("delta", "done")}}

KINDS: Mapping[str, Kind] = {
    "message": Kind(
        fields={"role": str, "content": list, "status": str},
        states=_S3,
        tracks=(Track("content", "content_index", frozenset(("output_text", "refusal"))),),
    ),
    "reasoning": Kind(
        fields={"summary": list},
        states=_S3,
        tracks=(
            Track("summary", "summary_index", frozenset(("summary_text",))),
            Track("content", "content_index", frozenset(("reasoning_text",))),
        ),
    ),
    "function_call": _said(_ARGUMENTS, fields={**_CALL, "arguments": str, "status": str}, states=_S3),
    "custom_tool_call": _said(
        _pieces("custom_tool_call_input", "input"), fields={**_CALL, "input": str}, states=_WITH_FAILED
    ),
    "mcp_list_tools": Kind(
        fields={"server_label": str, "tools": list}, steps=_MCP_LIST_STEPS, ends={"completed": _ANY, "failed": _ANY}
    ),
    "mcp_call": Kind(
        fields=_MCP_CALL,
        states=_WITH_FAILED,
        steps=_MCP_CALL_STEPS,
        ends={"completed": _COMPLETED, "failed": _UNDONE},
        text=_MCP_ARGUMENTS,
    ),
    "mcp_approval_request": Kind(fields=_MCP_CALL, at_once=True),
    "mcp_approval_response": Kind(fields={"approval_request_id": str, "approve": bool}),
    "mcp_elicitation_request": Kind(
        fields={**_MCP_CALL, "mcp_call_id": str, "mode": str, "message": str}, at_once=True
    ),
    "mcp_elicitation_response": Kind(fields={"elicitation_request_id": str, "action": str}),
    "file_search_call": _hosted("file_search_call", "response.file_search_call.searching", late={"queries": list}),
    "web_search_call": _hosted("web_search_call", "response.web_search_call.searching", late={"action": dict}),
    "code_interpreter_call": _hosted(
        "code_interpreter_call",
        f"{_CODE.delta}*",
        _CODE.done,
        "response.code_interpreter_call.interpreting",
        late={"container_id": str, "code": str},
        text=_CODE,
    ),
    "image_generation_call": _hosted(
        "image_generation_call",
        "response.image_generation_call.generating",
        "response.image_generation_call.partial_image*",
        late=_STATUS,
    ),
    "shell_call": Kind(fields={"call_id": str}, late={"action": dict}, states=_S3, steps=_COMMAND_STEPS),
    "shell_call_output": Kind(fields={"call_id": str}, late={"output": list}, states=_S3, steps=_OUTPUT_STEPS),
    "local_shell_call": Kind(fields={"call_id": str}, late={"action": dict}, states=_S3),
    "local_shell_call_output": Kind(late={"output": str}, states=_S3),
    "apply_patch_call": Kind(fields={"call_id": str}, late={"operation": dict}, states=_COMPLETED),
    "apply_patch_call_output": Kind(fields={"call_id": str}, states=frozenset(("completed", "failed"))),
    "computer_call": Kind(fields={"call_id": str}, states=_S3),
    "computer_call_output": Kind(fields={"call_id": str}, late={"output": dict}, states=_WITH_FAILED),
    "tool_search_call": Kind(states=_S3),
    "tool_search_output": Kind(late={"tools": list}, states=_S3),
    "additional_tools": Kind(late={"tools": list}),
    "program": Kind(fields={"call_id": str}, late={"code": str}, states=_S3),
    "program_output": Kind(fields={"call_id": str}, states=_S3),
    "function_call_output": Kind(fields={"call_id": str}, late=_STATUS, states=_S3),
    "custom_tool_call_output": Kind(fields={"call_id": str}, states=_S3),
    "compaction": Kind(
        late={"encrypted_content": str},
        steps={"": {"response.compaction.compacting": "made"}, "made": {}},
        ends={"": _ANY, "made": _ANY},
    ),
}

# What people are asked.
ASKING = frozenset(("mcp_approval_request", "mcp_elicitation_request"))

# Why an MCP call has no result, and what each kind of reason says.
MCP_ERRORS: Mapping[str, Fields] = {
    "mcp_protocol_error": {"code": int, "message": str},
    "mcp_tool_execution_error": {"content": object},
    "http_error": {"code": int, "message": str},
}
