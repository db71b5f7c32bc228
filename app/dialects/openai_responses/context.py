"""Stored items as the model sees them, and whether every call in them has its answer.

Calls the gateway made are stored one item each, call and result together, while the model saw the calls of one turn
side by side and then their results. Such calls share the stem of their id (`mcp_7f`, `ws_7f_2`, `mcp_7f_3`), and keep
what the model was told they are named, so that the context can be put together again exactly as it was: the engine's
prefix cache depends on it.

A request for approval becomes a call only once it is clear what became of it. One that was approved is nothing here:
the call that was made stands for it. One that was declined, or never made, is a call whose result says so. The same
goes for a call that asked the user something: the call that went on stands for it, or its question does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, cast

import msgspec
from msgspec import Raw, Struct

from app.dialects.openai_responses import context_calls
from app.dialects.openai_responses.kinds import kind_of
from app.dialects.openai_responses.parts import read_parts
from app.dialects.openai_responses.sealed import Unseal, nobody
from app.dialects.openai_responses.wire import (
    NULL,
    ApprovalRequestItem,
    ApprovalResponseItem,
    CompactionItem,
    ElicitationRequestItem,
    ListedTool,
    McpCallItem,
    McpErrorBody,
    McpListToolsItem,
    MessageItem,
    ReasoningItem,
)
from app.turn.errors import InvalidRequest
from app.turn.ids import whole_of
from app.turn.items import (
    Item,
    Message,
    Opaque,
    Part,
    Reasoning,
    Role,
    StoredItem,
    Text,
    ToolCall,
    ToolError,
    ToolListing,
    ToolResult,
    ToolSpec,
)
from app.turn.summary import summarised

DECLINED = "The user declined this call; it was not made."
NOT_MADE = "This call was not approved, and was not made."
NOT_ANSWERED = "The tool asked the user for input and was given none. The call did not come to an end."

# Items that say something to the server and nothing to the model.
_SILENT = frozenset(
    (
        *("mcp_approval_response", "mcp_elicitation_response"),
        *("additional_tools", "configuration_update", "compaction_trigger"),
    )
)
_STEM = re.compile(r"[a-z]+_(.+?)(?:_\d{1,3})?\Z")
# How the ids of calls begin that the gateway makes.
_MADE_HERE = ("mcp_", "ws_", "fs_", "ci_", "ig_")


class _Words(Struct, frozen=True, gc=False):
    type: Literal["input_text", "output_text", "text"]
    text: str


class _Spoken(Struct, frozen=True, gc=False):
    """A message of nothing but text, which most are, read in one go."""

    role: Role
    content: list[_Words] | str
    phase: Literal["commentary", "final_answer"] | None = None
    status: str | None = None


_spoken = msgspec.json.Decoder(_Spoken)
_request = msgspec.json.Decoder(ApprovalRequestItem)
_response = msgspec.json.Decoder(ApprovalResponseItem)
_elicitation = msgspec.json.Decoder(ElicitationRequestItem)
_compaction = msgspec.json.Decoder(CompactionItem)
_thought = msgspec.json.Decoder(ReasoningItem)
_mcp = msgspec.json.Decoder(McpCallItem)
_parted = msgspec.json.Decoder(MessageItem)


class Answers(Struct, frozen=True):
    """What became of what people were asked: requests whose call is made or gone on with, and those that were declined,
    with the reason. `asking` are the calls that ended with a question."""

    made: frozenset[str] = frozenset()
    asking: frozenset[str] = frozenset()
    declined: Mapping[str, str | None] = msgspec.field(default_factory=dict[str, str | None])


def to_items(
    stored: Sequence[StoredItem], *, unseal: Unseal = nobody, resumed: Collection[str] = ()
) -> tuple[Item, ...]:
    """Stored items as the vocabulary. What this version does not know becomes `Opaque`; a call that was never finished
    is left out, since nothing can answer it.

    `unseal` opens what the gateway has sealed; `resumed` are the requests for approval whose calls are about to be
    made. A summary stands for everything before it but what people said. Raises `InvalidRequest` for a summary that
    nobody can read.
    """
    kinds = [kind_of(item) or "message" for item in stored]
    answers = _answers(stored, kinds, resumed)
    items: list[Item] = []
    waiting: list[ToolResult] = []
    until = -1
    last = {_stem(item.id): index for index, item in enumerate(stored) if item.id.startswith(_MADE_HERE)}
    for index, (item, kind) in enumerate(zip(stored, kinds, strict=True)):
        if kind == "compaction":
            items = list(summarised((*items, *waiting), _summary(item.raw, unseal)))
            waiting.clear()
            continue
        made = _item(kind, item, answers, unseal)
        if len(made) == 2 and isinstance(made[0], ToolCall) and isinstance(made[1], ToolResult):
            waiting.append(made[1])
            until = max(until, last.get(_stem(item.id), index))
            made = made[:1]
        items += made
        if waiting and index >= until:
            items += waiting
            waiting.clear()
    return (*items, *waiting)


def check_pairing(items: Sequence[Item], new: Sequence[Item]) -> None:
    """Raise `InvalidRequest(param="input")` when a call among `items` has no result, or a result in `new`, which is the
    request's own part of them, has no call before it."""
    brought = {item.call_id for item in new if isinstance(item, ToolResult)}
    unanswered: Counter[str] = Counter()
    for item in items:
        if isinstance(item, ToolCall):
            unanswered[item.call_id] += 1
        elif isinstance(item, ToolResult):
            if unanswered[item.call_id] > 0:
                unanswered[item.call_id] -= 1
            elif item.call_id in brought:
                message = f"No tool call found for function call output with call_id {item.call_id}."
                raise InvalidRequest(message, param="input")
    for call_id in +unanswered:
        raise InvalidRequest(f"No tool output found for function call {call_id}.", param="input")


def _stem(identity: str) -> str:
    found = _STEM.match(identity)
    return found.group(1) if found else identity


def _answers(stored: Sequence[StoredItem], kinds: Sequence[str], resumed: Collection[str]) -> Answers:
    made, asking, declined = set(resumed), set[str](), dict[str, str | None]()
    for item, kind in zip(stored, kinds, strict=True):
        if kind == "mcp_call":
            call = _mcp.decode(item.raw)
            made |= {each for each in (call.approval_request_id, call.elicitation_request_id) if each is not None}
        elif kind == "mcp_elicitation_request":
            asking.add(_elicitation.decode(item.raw).mcp_call_id or "")
        elif kind == "mcp_approval_response":
            answer = _response.decode(item.raw)
            if not answer.approve:
                declined[answer.approval_request_id] = answer.reason
    return Answers(frozenset(made), frozenset(asking), declined)


def _item(kind: str, stored: StoredItem, answers: Answers, unseal: Unseal) -> tuple[Item, ...]:
    if kind in _SILENT or (kind == "mcp_call" and stored.id in answers.asking):
        return ()
    if kind == "mcp_elicitation_request":
        return _unanswered(_elicitation.decode(stored.raw), answers)
    if kind == "mcp_approval_request":
        return _asked(_request.decode(stored.raw), answers)
    if kind == "reasoning":
        return _reasoning(_thought.decode(stored.raw), unseal)
    if kind in context_calls.READERS:
        return context_calls.READERS[kind](kind, stored.raw)
    if kind == "message":
        return (_message(stored.raw),)
    known = _READERS.get(kind)
    if known is None:
        return (Opaque(kind, stored.raw),)
    decoder, reader = known
    return reader(decoder.decode(stored.raw))


def _asked(wire: ApprovalRequestItem, answers: Answers) -> tuple[Item, ...]:
    if wire.id in answers.made:
        return ()
    reason = answers.declined.get(wire.id)
    why = NOT_MADE if wire.id not in answers.declined else f"{DECLINED} Reason: {reason}" if reason else DECLINED
    call = ToolCall(wire.id, wire.name, wire.arguments, wire.server_label, wire.name)
    return call, ToolResult(wire.id, why, ToolError("mcp_protocol_error", why))


def _unanswered(wire: ElicitationRequestItem, answers: Answers) -> tuple[Item, ...]:
    """The call that asked, once for all it asked; nothing where it has been gone on with."""
    if wire.id in answers.made or wire.id != whole_of(wire.id):
        return ()
    call = ToolCall(wire.id, wire.name, wire.arguments, wire.server_label, wire.name)
    return call, ToolResult(wire.id, NOT_ANSWERED, ToolError("mcp_protocol_error", NOT_ANSWERED))


def _summary(raw: Raw, unseal: Unseal) -> str:
    sealed = unseal(_compaction.decode(raw).encrypted_content)
    if sealed is None or sealed.kind != "compaction":
        message = "The context holds a compaction item that this server cannot read."
        raise InvalidRequest(message, param="input", code="invalid_encrypted_content")
    return sealed.text


def _message(raw: Raw) -> Message:
    try:
        spoken = _spoken.decode(raw)
    except msgspec.ValidationError:
        wire = _parted.decode(raw)
        content = (Text(wire.content),) if isinstance(wire.content, str) else read_parts(wire.content)
        return Message(wire.role, content, wire.phase)
    words = spoken.content
    return Message(
        spoken.role,
        (Text(words),) if isinstance(words, str) else tuple([Text(each.text) for each in words]),
        spoken.phase,
    )


def _reasoning(wire: ReasoningItem, unseal: Unseal) -> tuple[Item, ...]:
    text = "".join(block.text for block in wire.content or ())
    if not text and wire.encrypted_content is not None:
        sealed = unseal(wire.encrypted_content)
        text = "" if sealed is None else sealed.text
    return (Reasoning(text, tuple(block.text for block in wire.summary or ()), wire.encrypted_content),)


def _listing(wire: McpListToolsItem) -> tuple[Item, ...]:
    tools = tuple(_listed(tool, wire.server_label) for tool in wire.tools)
    error = None if wire.error == NULL else ToolError("mcp_protocol_error", _as_text(wire.error))
    return (ToolListing(wire.server_label, tools, error),)


def _listed(tool: ListedTool, label: str) -> ToolSpec:
    return ToolSpec(
        name=tool.name,
        parameters=tool.input_schema,
        description=tool.description,
        server_label=label,
        tool=tool.name,
        annotations=None if tool.annotations == NULL else tool.annotations,
    )


def _mcp_call(wire: McpCallItem) -> tuple[Item, ...]:
    if wire.output is None and wire.error is None and wire.status not in {"completed", None}:
        return ()
    error = _error(wire.error)
    output: str | tuple[Part, ...] = wire.output if wire.output is not None else error.message if error else ""
    if wire.output_parts is not None:
        output = read_parts(wire.output_parts)
    name = wire.model_call_id or wire.id
    call = ToolCall(
        *(name, wire.name, wire.arguments, wire.server_label, wire.name),
        approval_id=wire.approval_request_id,
        elicitation_id=wire.elicitation_request_id,
    )
    return (call, ToolResult(name, output, error))


def _error(wire: McpErrorBody | str | None) -> ToolError | None:
    if wire is None:
        return None
    if isinstance(wire, str):
        return ToolError("mcp_protocol_error", wire)
    if wire.type == "http_error":
        return ToolError("http_error", wire.message, wire.code)
    if wire.type == "mcp_tool_execution_error":
        message = wire.message if wire.content == NULL else _as_text(wire.content)
        return ToolError("mcp_tool_execution_error", message, wire.code)
    return ToolError("mcp_protocol_error", wire.message, wire.code)


def _as_text(raw: Raw) -> str:
    """An error's free-form content: a string, the texts of a list of MCP content blocks, or else its JSON."""
    content = msgspec.json.decode(raw)
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        blocks = [cast("dict[str, Any]", block) for block in cast("list[Any]", content) if isinstance(block, dict)]
        return "\n".join(str(block["text"]) for block in blocks if "text" in block)
    return bytes(raw).decode()


_READERS: dict[str, tuple[msgspec.json.Decoder[Any], Callable[[Any], tuple[Item, ...]]]] = {
    "mcp_list_tools": (msgspec.json.Decoder(McpListToolsItem), _listing),
    "mcp_call": (_mcp, _mcp_call),
}

_ASKED = ("mcp_approval_request", "mcp_elicitation_request")
# Every type of item that is read here.
READ = frozenset((*_READERS, *context_calls.READERS, *_SILENT, *_ASKED, "message", "reasoning", "compaction"))
