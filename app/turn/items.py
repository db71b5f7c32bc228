"""Items: what a conversation is made of, in no provider's wire format.

An item this gateway does not know is an `Opaque`: it is kept byte for byte, so a newer client loses nothing.

A long conversation is tens of thousands of these, made anew for each turn. What holds strings only is `gc=False`: no
cycle can go through it, and the collector need not look.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

Role: TypeAlias = Literal["system", "developer", "user", "assistant"]

# What a call of a tool is shown as. The model sees a function in each case; only the client's view differs. Calls of
# `tool_search` are the client's to answer, those of `server_tool_search` the gateway's.
ToolKind: TypeAlias = Literal[
    "function",
    "custom",
    "shell",
    "local_shell",
    "apply_patch",
    "computer",
    "computer_use_preview",
    "tool_search",
    "server_tool_search",
    "web_search",
    "file_search",
    "code_interpreter",
    "image_generation",
]


class Text(Struct, frozen=True, gc=False, tag="text"):
    """Plain text, from either side."""

    text: str


class Refusal(Struct, frozen=True, gc=False, tag="refusal"):
    """The model declined; `text` is how it said so."""

    text: str


class Image(Struct, frozen=True, tag="image"):
    """An image by URL (http(s) or data:)."""

    url: str
    detail: str | None = None


class File(Struct, frozen=True, tag="file"):
    """A file by data URL, by URL or by id; at least one is set."""

    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    filename: str | None = None


class OpaquePart(Struct, frozen=True, tag="opaque"):
    """A content part of a type we do not know, verbatim."""

    kind: str
    raw: msgspec.Raw


Part: TypeAlias = Text | Refusal | Image | File | OpaquePart


class Message(Struct, frozen=True, gc=False, tag="message"):
    """Something said by a role."""

    role: Role
    content: tuple[Part, ...]
    phase: str | None = None

    @property
    def text(self) -> str:
        """All text of the message, joined."""
        return "".join(part.text for part in self.content if isinstance(part, Text))


class Reasoning(Struct, frozen=True, tag="reasoning"):
    """What the model thought. `encrypted` is an opaque token for whoever sealed it."""

    text: str = ""
    summary: tuple[str, ...] = ()
    encrypted: str | None = None


class ToolCall(Struct, frozen=True, gc=False, tag="tool_call"):
    """The model asks for a tool. `name` is the name the model saw; `arguments` is whatever string it produced.

    With a `server_label` the gateway executes it (`tool` is the server's own name); without one the client does, and
    knows the tool as `tool` of `namespace` where it has one. `approval_id` is set when a person approved the call,
    `elicitation_id` when it goes on after a person has answered what it asked.
    """

    call_id: str
    name: str
    arguments: str
    server_label: str | None = None
    tool: str | None = None
    kind: ToolKind = "function"
    namespace: str | None = None
    approval_id: str | None = None
    elicitation_id: str | None = None


class ToolError(Struct, frozen=True):
    """Why a tool call has no result. The three kinds are the API's own (McpToolCallError)."""

    kind: Literal["mcp_protocol_error", "mcp_tool_execution_error", "http_error"]
    message: str
    code: int = 0


class ToolResult(Struct, frozen=True, tag="tool_result"):
    """What a call returned: text or parts for the model; with `error` set, the text tells the model what failed.

    `picture` is the image that an image generation has made, as base64: for the client, the model does not see it.
    """

    call_id: str
    output: str | tuple[Part, ...]
    error: ToolError | None = None
    picture: str | None = None


class Terms(Struct, frozen=True):
    """What an approval of a call holds for besides the call itself: when any of it changes, the approval is void.

    `place` tells the server from others, `definition` is a digest of the tool's definition as the server gave it,
    `policy` the version of the rules that were asked.
    """

    place: str
    definition: str
    policy: str


class Question(Struct, frozen=True):
    """What a tool asks the user in the middle of a call (MCP elicitation).

    With a `url` the user is to go there, and the answer is only whether they agree to. Otherwise the answer has content
    that fits `schema`, a JSON Schema as text. `id` is empty until the question is remembered.
    """

    message: str
    schema: str = ""
    url: str = ""
    id: str = ""


class ToolSpec(Struct, frozen=True):
    """A tool offered to the model.

    `name` is unique in a request and at most 64 characters of [A-Za-z0-9_-]. `tool` is the server's own name when
    it differs from `name` or the tool lives on a server; a client's tool may live in a `namespace`. `parameters` is a
    JSON Schema, verbatim. `deferred` tools are not shown to the model before a search has found them. `grammar` is the
    format a custom tool's input must have, as the client gave it.
    Whether a call needs a person's word is `approval`; `terms` are what that word holds for. Tools nobody may call
    are not offered at all.
    """

    name: str
    parameters: msgspec.Raw
    description: str | None = None
    strict: bool | None = None
    server_label: str | None = None
    tool: str | None = None
    annotations: msgspec.Raw | None = None
    approval: Literal["never", "ask"] = "never"
    terms: Terms | None = None
    kind: ToolKind = "function"
    namespace: str | None = None
    deferred: bool = False
    grammar: msgspec.Raw | None = None


class ToolListing(Struct, frozen=True, tag="tool_listing"):
    """The tools a server offers, as seen at this point of the conversation. `error` says why there are none."""

    server_label: str
    tools: tuple[ToolSpec, ...] = ()
    error: ToolError | None = None


class Opaque(Struct, frozen=True, tag="opaque_item"):
    """An item of a type we do not know, verbatim."""

    kind: str
    raw: msgspec.Raw


Item: TypeAlias = Message | Reasoning | ToolCall | ToolResult | ToolListing | Opaque


class StoredItem(Struct, frozen=True, gc=False):
    """An item as the API shows it: its id and its JSON, verbatim."""

    id: str
    raw: msgspec.Raw
