"""One model turn as a value: what to say to the model and how to sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from app.turn.items import Item, ToolKind, ToolSpec


class NamedTool(Struct, frozen=True, tag="named"):
    """The model must call this tool (by the name the model sees)."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


class ToolRef(Struct, frozen=True):
    """Some tools: one of the client's by `name`, one of a server's by its own name, or all of a server's."""

    name: str | None = None
    server_label: str | None = None

    def covers(self, tool: ToolSpec) -> bool:
        """Whether `tool` is meant."""
        if self.server_label != tool.server_label:
            return self.name == tool.kind != "function" and self.server_label is None
        if tool.server_label is None:
            return tool.name == self.name
        return self.name is None or self.name == (tool.tool or tool.name)


class AllowedTools(Struct, frozen=True):
    """The model may call only these, whatever else it is shown. `lasting`: in every turn; otherwise in the first."""

    tools: tuple[ToolRef, ...]
    lasting: bool = True

    def allows(self, tool: ToolSpec) -> bool:
        """Whether `tool` may be called."""
        return any(ref.covers(tool) for ref in self.tools)


class Sampling(Struct, frozen=True, kw_only=True):
    """How to sample. None means: the engine's own default."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Format(Struct, frozen=True, kw_only=True):
    """The shape of the answer: text, any JSON object, or JSON that fits a schema (verbatim JSON Schema)."""

    kind: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema: msgspec.Raw | None = None
    strict: bool | None = None
    description: str | None = None


class ToolFilter(Struct, frozen=True, kw_only=True):
    """Some tools of a server: those of these `names`, where set, that say whether they only read, where asked."""

    names: tuple[str, ...] | None = None
    read_only: bool | None = None

    def covers(self, tool: str, *, read_only: bool) -> bool:
        """Whether `tool`, which only reads or may do more, is one of them. A filter that says nothing covers none."""
        if self.names is None and self.read_only is None:
            return False
        named = self.names is None or tool in self.names
        return named and (self.read_only is None or self.read_only == read_only)


class ApprovalRule(Struct, frozen=True, kw_only=True):
    """Which calls a request wants a person's word for: `mode` says it of the tools that no filter covers.

    Where both filters cover a tool, its calls need approval.
    """

    mode: Literal["always", "never"] = "always"
    always: ToolFilter | None = None
    never: ToolFilter | None = None

    def asks(self, tool: str, *, read_only: bool) -> bool:
        """Whether a call of `tool` needs approval, as far as the request goes."""
        if self.always is not None and self.always.covers(tool, read_only=read_only):
            return True
        if self.never is not None and self.never.covers(tool, read_only=read_only):
            return False
        return self.mode == "always"


NEVER_ASK = ApprovalRule(mode="never")


class McpServer(Struct, frozen=True, kw_only=True):
    """An MCP server as one request names it.

    With neither `url` nor `connector_id` it is the operator's server of that label.

    `headers` and `authorization` (a bearer token) go to that server only and are never stored in clear or echoed.
    `allowed` limits the tools by name; `read_only` limits them to tools that say so. `require_approval` is the
    request's own rule; the tenant's can only be stricter. Tools of a server with `defer_loading` are shown to the model
    once a search has found them; `description` helps to find them. With a `role` it is the operator's server for that
    hosted tool, and `options` are what the client has set about the tool. `path` is where the request names it.
    """

    label: str
    url: str | None = None
    connector_id: str | None = None
    authorization: str | None = None
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    allowed: tuple[str, ...] | None = None
    read_only: bool | None = None
    require_approval: ApprovalRule = ApprovalRule()
    defer_loading: bool = False
    description: str | None = None
    role: ToolKind | None = None
    options: Mapping[str, msgspec.Raw] = msgspec.field(default_factory=dict[str, msgspec.Raw])
    path: str = "tools"

    def __repr__(self) -> str:
        return f"McpServer(label={self.label!r}, url={self.url!r})"


class TurnRequest(Struct, frozen=True, kw_only=True):
    """One model turn, in no provider's dialect.

    `instructions` come before all items. `items` is the whole context in order. `tools` are in a stable order, so
    that equal conversations have equal prompts and the engine's prefix cache holds.
    `extra` are fields we do not model, forwarded to the engine as they are.
    """

    model: str
    items: tuple[Item, ...]
    instructions: str | None = None
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    sampling: Sampling = Sampling()
    format: Format = Format()
    reasoning_effort: str | None = None
    extra: Mapping[str, msgspec.Raw] = msgspec.field(default_factory=dict[str, msgspec.Raw])
