"""Input items on their way in: checked, given an id, and made into what is stored and listed.

Nothing a client said is lost: an item keeps every field it came with, known or not; only what the API fills in itself
(id, status, content as a list) is added.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from app.dialects.openai_responses import not_yet
from app.dialects.openai_responses.client_calls import CALLS
from app.dialects.openai_responses.context_calls import HOSTED_ITEMS
from app.dialects.openai_responses.faults import absent, read, wrong
from app.dialects.openai_responses.kinds import kind_of
from app.dialects.openai_responses.sealed import Unseal, nobody
from app.dialects.openai_responses.tools import read_tools
from app.dialects.openai_responses.wire import (
    ApprovalRequestItem,
    ApprovalResponseItem,
    CallOutputItem,
    ClientCallItem,
    CompactionItem,
    ComputerOutputItem,
    ConfigurationItem,
    CreateResponse,
    CustomCallItem,
    ElicitationRequestItem,
    ElicitationResponseItem,
    FilePart,
    FunctionCallItem,
    Head,
    HostedCallItem,
    ImagePart,
    LocalShellOutputItem,
    McpCallItem,
    McpListToolsItem,
    MessageItem,
    PatchOutputItem,
    ReasoningItem,
    RefusalPart,
    ShellOutputItem,
    TextPart,
    ToolsItem,
)
from app.turn.errors import InvalidRequest, NotFound
from app.turn.ids import IdSource, is_well_formed
from app.turn.items import StoredItem


class ApprovalAnswer(Struct, frozen=True):
    """A person's word about a request for approval; `path` is where the request gives it."""

    approval_id: str
    approve: bool
    path: str


# How the API's ids begin. Other kinds of items get `item_`.
PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "mcp_list_tools": "mcpl",
    "mcp_call": "mcp",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcpa",
    "mcp_elicitation_request": "mcpe",
    "mcp_elicitation_response": "mcpea",
    "web_search_call": "ws",
    "file_search_call": "fs",
    "code_interpreter_call": "ci",
    "image_generation_call": "ig",
    "computer_call": "cu",
    "computer_call_output": "cuo",
    "shell_call": "sh",
    "shell_call_output": "sho",
    "local_shell_call": "lsh",
    "local_shell_call_output": "lsho",
    "apply_patch_call": "apc",
    "apply_patch_call_output": "apco",
    "tool_search_call": "tsc",
    "tool_search_output": "tso",
    "compaction": "cmp",
}

_HAVE_STATUS = frozenset(
    ("message", "function_call", "function_call_output", "custom_tool_call_output", "tool_search_output")
)
_COMPLETED = Raw(b'"completed"')

_head = msgspec.json.Decoder(Head)
_fields = msgspec.json.Decoder(dict[str, Raw])
_message = msgspec.json.Decoder(MessageItem)
_asked = msgspec.json.Decoder(ApprovalRequestItem)
_response = msgspec.json.Decoder(ApprovalResponseItem)
_encode = msgspec.json.Encoder().encode

_ITEMS: dict[str, msgspec.json.Decoder[Any]] = {
    "message": _message,
    "function_call": msgspec.json.Decoder(FunctionCallItem),
    "function_call_output": msgspec.json.Decoder(CallOutputItem),
    "custom_tool_call": msgspec.json.Decoder(CustomCallItem),
    "custom_tool_call_output": msgspec.json.Decoder(CallOutputItem),
    **{kind: msgspec.json.Decoder(ClientCallItem) for kind in CALLS},
    "shell_call_output": msgspec.json.Decoder(ShellOutputItem),
    "local_shell_call_output": msgspec.json.Decoder(LocalShellOutputItem),
    "apply_patch_call_output": msgspec.json.Decoder(PatchOutputItem),
    "computer_call_output": msgspec.json.Decoder(ComputerOutputItem),
    "additional_tools": msgspec.json.Decoder(ToolsItem),
    "tool_search_output": msgspec.json.Decoder(ToolsItem),
    "reasoning": msgspec.json.Decoder(ReasoningItem),
    "mcp_list_tools": msgspec.json.Decoder(McpListToolsItem),
    "mcp_approval_response": msgspec.json.Decoder(ApprovalResponseItem),
    "mcp_elicitation_response": msgspec.json.Decoder(ElicitationResponseItem),
    "compaction": msgspec.json.Decoder(CompactionItem),
    "configuration_update": msgspec.json.Decoder(ConfigurationItem),
    # The ids of these are part of what they say.
    **{kind: msgspec.json.Decoder(HostedCallItem) for kind in HOSTED_ITEMS},
    "mcp_call": msgspec.json.Decoder(McpCallItem),
    "mcp_approval_request": msgspec.json.Decoder(ApprovalRequestItem),
    "mcp_elicitation_request": msgspec.json.Decoder(ElicitationRequestItem),
}
_NEED_IDS = frozenset((*HOSTED_ITEMS, "mcp_call", "mcp_approval_request", "mcp_elicitation_request"))
# What only a model, or the gateway for it, makes.
BY_MODEL = frozenset(
    ("reasoning", "function_call", "custom_tool_call", "mcp_call", "compaction", *CALLS, *HOSTED_ITEMS)
)

_text = msgspec.json.Decoder(TextPart)
_PARTS: dict[str, msgspec.json.Decoder[Any]] = {
    "input_text": _text,
    "output_text": _text,
    "text": _text,
    "refusal": msgspec.json.Decoder(RefusalPart),
    "input_image": msgspec.json.Decoder(ImagePart),
    "input_file": msgspec.json.Decoder(FilePart),
}


def input_items(request: CreateResponse, ids: IdSource, unseal: Unseal = nobody) -> tuple[StoredItem, ...]:
    """The request's own input as stored items: each with an id, messages with a status and a list of parts.

    `item_reference`s are kept as they are, for `references` and `resolve`. A `compaction_trigger` is no item of the
    conversation and is left out. Raises `InvalidRequest` with the path of the wrong field (`input[0].role`), for an id
    given twice, and for sealed content that `unseal` cannot open.
    """
    given = request.input
    if given is None:
        return ()
    if isinstance(given, str):
        identity = ids.new("msg")
        content = [{"type": "input_text", "text": given}]
        message = {"id": identity, "type": "message", "status": "completed", "role": "user", "content": content}
        return (StoredItem(identity, Raw(_encode(message))),)
    said = given[:-1] if asks_to_compact(request) else given
    stored = tuple(_stored(raw, f"input[{index}]", ids, unseal) for index, raw in enumerate(said))
    seen: set[str] = set()
    for item in stored:
        if item.id in seen:
            message = f"There is more than one item with id '{item.id}'. Remove the duplicates and try again."
            raise InvalidRequest(message, param="input")
        seen.add(item.id)
    return stored


def asks_to_compact(request: CreateResponse) -> bool:
    """Whether the last input item is a `compaction_trigger`."""
    if not isinstance(request.input, list) or not request.input:
        return False
    last = len(request.input) - 1
    return read(_head, request.input[last], f"input[{last}]").type == "compaction_trigger"


def references(items: Sequence[StoredItem]) -> tuple[str, ...]:
    """The ids of the items that `items` refer to."""
    return tuple(item.id for item in items if _is_reference(item))


def resolve(
    items: Sequence[StoredItem], found: Mapping[str, StoredItem], context: Collection[str]
) -> tuple[StoredItem, ...]:
    """The items with what they refer to in place of the references, except what the `context` (by ids) has already.

    Raises `NotFound` for an item that is nowhere.
    """
    resolved: list[StoredItem] = []
    for item in items:
        if not _is_reference(item):
            resolved.append(item)
        elif item.id in found:
            resolved.append(found[item.id])
        elif item.id not in context:
            message = f"Item with id '{item.id}' not found. Items are not persisted when `store` is set to false."
            raise NotFound(message, param="input")
    return tuple(resolved)


def approval_answers(items: Sequence[StoredItem], request: CreateResponse) -> tuple[ApprovalAnswer, ...]:
    """The answers to requests for approval that the request brings, each with its path. `items` are what `input_items`
    made of it.

    A client that keeps the conversation itself sends old answers again: what a model's item follows was answered then.
    """
    if not isinstance(request.input, list):
        return ()
    answers: list[ApprovalAnswer] = []
    for index, item in enumerate(items):
        kind = kind_of(item)
        if kind == "mcp_approval_response":
            answer = _response.decode(item.raw)
            answers.append(ApprovalAnswer(answer.approval_request_id, answer.approve, f"input[{index}]"))
        elif answers and (kind in BY_MODEL or _head.decode(item.raw).role == "assistant"):
            answers.clear()
    return tuple(answers)


def approval_labels(items: Sequence[StoredItem]) -> dict[str, str]:
    """The server of each request for approval among the items, by the request's id."""
    asked = (_asked.decode(item.raw) for item in items if kind_of(item) == "mcp_approval_request")
    return {request.id: request.server_label for request in asked}


def _is_reference(item: StoredItem) -> bool:
    return kind_of(item) == "item_reference"


def _stored(raw: Raw, path: str, ids: IdSource, unseal: Unseal) -> StoredItem:
    head = read(_head, raw, path)
    kind = _kind(head, path)
    if kind == "compaction_trigger":
        raise wrong(f"{path}.type", "a compaction_trigger is the last item, and the only one.")
    fields = read(_fields, raw, path)
    identity = head.id if head.id is not None and is_well_formed(head.id) else ids.new(PREFIXES.get(kind, "item"))
    given: dict[str, Raw] = {"id": Raw(_encode(identity)), "type": Raw(_encode(kind))}
    if kind in _HAVE_STATUS and fields.get("status") in (None, Raw(b"null")):
        given["status"] = _COMPLETED
    whole = {**given, **fields, **given}
    if kind in _ITEMS:
        body = read(_ITEMS[kind], Raw(_encode(whole)) if kind in _NEED_IDS else raw, path)
        if isinstance(body, MessageItem):
            whole["content"] = _content(body, path, whole["content"])
            if body.phase is None:
                # Open Responses has no null here.
                whole.pop("phase", None)
        else:
            _check(body, path, unseal)
    return StoredItem(identity, Raw(_encode(whole)))


def _check(body: object, path: str, unseal: Unseal) -> None:
    """What the type of an item's body does not say."""
    match body:
        case CallOutputItem() if not isinstance(body.output, str):
            _check_parts(body.output, f"{path}.output")
        case McpCallItem() if body.output_parts is not None:
            _check_parts(body.output_parts, f"{path}.output_parts")
        case ToolsItem():
            read_tools(body.tools, f"{path}.tools")
        case ComputerOutputItem() if body.output.image_url is None:
            where = f"{path}.output"
            if body.output.file_id:
                raise not_yet.refuse(f"{where}.file_id", "Give the screenshot as a URL or a data: URL.")
            raise absent(f"{where}.image_url")
        case ReasoningItem() | CompactionItem() if body.encrypted_content is not None:
            if unseal(body.encrypted_content) is None:
                message = f"The encrypted content of '{path}' could not be verified: it was not made by this server."
                raise InvalidRequest(message, param=f"{path}.encrypted_content", code="invalid_encrypted_content")
        case _:
            pass


def _kind(head: Head, path: str) -> str:
    if head.type:
        return head.type
    if head.type is not None:
        raise wrong(f"{path}.type", "it is empty.")
    if head.role is not None:
        return "message"
    if head.id is not None:
        return "item_reference"
    raise absent(f"{path}.type")


def _content(message: MessageItem, path: str, raw: Raw) -> Raw:
    if not isinstance(message.content, str):
        _check_parts(message.content, f"{path}.content")
        return raw
    part: dict[str, object] = {"type": "input_text", "text": message.content}
    if message.role == "assistant":
        part = {"type": "output_text", "text": message.content, "annotations": []}
    return Raw(_encode([part]))


def _check_parts(parts: list[Raw], path: str) -> None:
    for index, raw in enumerate(parts):
        where = f"{path}[{index}]"
        kind = read(_head, raw, where).type
        if kind is None:
            raise absent(f"{where}.type")
        if kind not in _PARTS:
            continue
        part = read(_PARTS[kind], raw, where)
        if isinstance(part, ImagePart) and not part.image_url:
            if part.file_id:
                raise not_yet.refuse(f"{where}.file_id", "Give the image as a URL or a data: URL.")
            raise absent(f"{where}.image_url")
        if isinstance(part, FilePart) and not (part.file_data or part.file_url or part.file_id):
            raise wrong(where, "one of 'file_data' and 'file_url' is expected.")
