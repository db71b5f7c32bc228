"""Wire structs of the Responses API: what clients send. Responses themselves are written by `encode`.

Two unions stay open on purpose: input items and tools are kept as raw JSON and decoded one by one, so that a kind this
version does not know costs nobody their conversation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

# What a raw field holds when it is null or missing: msgspec cannot decode `Raw | None`.
NULL = Raw(b"null")


def missing() -> Raw:
    """The default of raw fields."""
    return NULL


# ── the request ───────────────────────────────────────────────────────────────

Verbosity: TypeAlias = Literal["low", "medium", "high"]
Effort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Include: TypeAlias = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]
Truncation: TypeAlias = Literal["auto", "disabled"]
CacheRetention: TypeAlias = Literal["in_memory", "in-memory", "24h"]
ServiceTier: TypeAlias = Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}\Z")]
Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class TextFormat(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of the answer. `name` and `schema` belong to `json_schema`."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    schema: Raw = msgspec.field(default_factory=missing)
    strict: bool | None = None
    description: str | None = None


class TextConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the answer's text should be."""

    format: TextFormat | None = None
    verbosity: Verbosity | None = None


class ReasoningConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model should think."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None


class StreamOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the stream should be."""

    include_obfuscation: bool | None = None


class ExpiresAfter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to forget what is made: so many seconds after that moment."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=1, le=315_360_000)]


class CacheOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hints for prompt caches."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m", "12h"] | None = None
    prewarm: bool | None = None
    comparison_response_id: str | None = None


class ImageOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How images in the context are treated."""

    context_compression: Literal["auto", "enabled", "disabled"] | None = None


class ConversationRef(Struct, frozen=True, forbid_unknown_fields=True):
    """A conversation by its id."""

    id: str


class PromptRef(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stored prompt. A variable is text, or an `input_text`, `input_image` or `input_file` part."""

    id: str
    version: str | None = None
    variables: dict[str, Raw] | None = None


class CreateResponse(Struct, frozen=True, kw_only=True):
    """The body of `POST /v1/responses`. Numbers are in the units of the API: tokens, calls, probabilities."""

    model: Annotated[str, Meta(min_length=1, description="The model to ask.")]
    input: Annotated[str | list[Raw] | None, Meta(description="Text, or a list of items.")] = None
    instructions: Annotated[str | None, Meta(description="Comes before everything else; not inherited.")] = None
    tools: Annotated[list[Raw] | None, Meta(description="Tools of any type; see docs/responses.md.")] = None
    tool_choice: Annotated[Raw, Meta(description="none, auto, required, a tool, or allowed tools.")] = msgspec.field(
        default_factory=missing
    )
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    previous_response_id: Annotated[str | None, Meta(description="The response to go on from.")] = None
    conversation: Annotated[
        str | ConversationRef | None, Meta(description="The conversation to go on with, by id; not with the former.")
    ] = None
    store: Annotated[bool | None, Meta(description="Whether to keep the response; true when absent.")] = None
    expires_after: Annotated[
        ExpiresAfter | None, Meta(description="When to forget the response, if before its tenant's retention ends.")
    ] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None
    background_options: Raw = msgspec.field(default_factory=missing)
    include: list[Include] | None = None
    metadata: Metadata | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    truncation: Truncation | None = None
    context_management: list[ContextManagement] | None = None
    prompt: Annotated[PromptRef | None, Meta(description="A stored prompt, with values for its variables.")] = None
    prompt_cache_key: str | None = None
    prompt_cache_options: CacheOptions | None = None
    prompt_cache_retention: CacheRetention | None = None
    service_tier: ServiceTier | None = None
    safety_identifier: Annotated[str, Meta(max_length=128)] | None = None
    user: str | None = None
    access_programs: Raw = msgspec.field(default_factory=missing)
    image: ImageOptions | None = None
    moderation: Raw = msgspec.field(default_factory=missing)
    extra: Annotated[
        Mapping[str, Raw],
        Meta(extra_json_schema={"readOnly": True, "description": "Sampling fields of engines are given at the top."}),
    ] = msgspec.field(default_factory=dict[str, Raw])

    @property
    def conversation_id(self) -> str | None:
        """The id of the conversation the request goes on with."""
        return self.conversation.id if isinstance(self.conversation, ConversationRef) else self.conversation


# Fields of engines' own sampling, which the API does not have. They are handed to the engine as they are.
ENGINE_FIELDS = frozenset(
    """
    add_generation_prompt allowed_token_ids bad_words cache_prompt cache_salt chat_template chat_template_kwargs
    continue_final_message custom_params documents dry_allowed_length dry_base dry_multiplier
    dry_sequence_breakers dynatemp_exponent dynatemp_range ebnf enable_thinking grammar guided_choice
    guided_grammar guided_json guided_regex ignore_eos include_stop_str_in_output length_penalty logit_bias
    min_keep min_p min_tokens mirostat mirostat_eta mirostat_tau mm_processor_kwargs n_probs no_stop_trim num_ctx
    prompt_logprobs reasoning_format regex repeat_last_n repeat_penalty repetition_penalty samplers
    separate_reasoning skip_special_tokens spaces_between_special_tokens stop_regex stop_token_ids
    structured_outputs tfs_z think thinking thinking_budget thinking_token_budget top_a top_k top_n_sigma
    truncate_prompt_tokens typical_p vllm_xargs xtc_probability xtc_threshold
    """.split()  # noqa: SIM905 - a list this long reads better as text
)

# What clients and proxies add for their own books. It changes nothing about the answer.
IGNORED_FIELDS = frozenset(
    ("client_metadata", "litellm_metadata", "litellm_session_id", "litellm_trace_id", "litellm_call_id")
)

# ── input items ───────────────────────────────────────────────────────────────


class Head(Struct, frozen=True):
    """What tells items, parts, tools and choices apart."""

    type: str | None = None
    id: str | None = None
    role: str | None = None


class MessageItem(Struct, frozen=True, kw_only=True):
    """A message. `content` parts are decoded one by one."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Raw]
    phase: Literal["commentary", "final_answer"] | None = None
    status: str | None = None


class FunctionCallItem(Struct, frozen=True, kw_only=True):
    """A call the client executes."""

    call_id: Annotated[str, Meta(min_length=1)]
    name: Annotated[str, Meta(min_length=1)]
    arguments: str
    namespace: str | None = None
    status: str | None = None


class CustomCallItem(Struct, frozen=True, kw_only=True):
    """A call the client executes, of a tool that takes free text."""

    call_id: Annotated[str, Meta(min_length=1)]
    name: Annotated[str, Meta(min_length=1)]
    input: str
    namespace: str | None = None
    status: str | None = None


class ClientCallItem(Struct, frozen=True, kw_only=True):
    """A call of a shell, a patch, a computer or a search; its other fields are read by `client_calls`."""

    call_id: str | None = None
    id: str | None = None
    status: str | None = None


class CallOutputItem(Struct, frozen=True, kw_only=True):
    """What a call of the client's returned."""

    call_id: Annotated[str, Meta(min_length=1)]
    output: str | list[Raw]


class LocalShellOutputItem(Struct, frozen=True, kw_only=True):
    """What a local shell printed. The contract calls its call's id `id`; some clients say `call_id`."""

    output: str
    call_id: str | None = None
    id: str | None = None


class ShellOutcome(Struct, frozen=True, kw_only=True):
    """How a command ended."""

    type: Literal["exit", "timeout"]
    exit_code: int | None = None


class ShellOutput(Struct, frozen=True, kw_only=True):
    """What one command printed."""

    stdout: str = ""
    stderr: str = ""
    outcome: ShellOutcome | None = None


class ShellOutputItem(Struct, frozen=True, kw_only=True):
    """What the commands of a shell call printed."""

    call_id: Annotated[str, Meta(min_length=1)]
    output: list[ShellOutput]


class PatchOutputItem(Struct, frozen=True, kw_only=True):
    """How a patch went."""

    call_id: Annotated[str, Meta(min_length=1)]
    status: Literal["completed", "failed"] = "completed"
    output: str | None = None


class Screenshot(Struct, frozen=True, kw_only=True):
    """What the screen shows."""

    image_url: str | None = None
    file_id: str | None = None


class ComputerOutputItem(Struct, frozen=True, kw_only=True):
    """What the screen shows after a computer's actions."""

    call_id: Annotated[str, Meta(min_length=1)]
    output: Screenshot


class ToolsItem(Struct, frozen=True, kw_only=True):
    """`additional_tools` and `tool_search_output`: tools that are there from here on."""

    tools: list[Raw]
    call_id: str | None = None
    execution: Literal["server", "client"] | None = None


class ApprovalRequestItem(Struct, frozen=True, kw_only=True):
    """A call that waits for a person's word."""

    id: Annotated[str, Meta(min_length=1)]
    server_label: str
    name: Annotated[str, Meta(min_length=1)]
    arguments: str


class ApprovalResponseItem(Struct, frozen=True, kw_only=True):
    """The word."""

    approval_request_id: Annotated[str, Meta(min_length=1)]
    approve: bool
    reason: str | None = None


class ElicitationRequestItem(Struct, frozen=True, kw_only=True):
    """What a tool asks the user in the middle of the call `mcp_call_id`. Beyond OpenAI's contract."""

    id: Annotated[str, Meta(min_length=1)]
    server_label: str
    name: Annotated[str, Meta(min_length=1)]
    arguments: str
    mcp_call_id: str | None = None


class ElicitationResponseItem(Struct, frozen=True, kw_only=True):
    """What the user did about it. `content` is an object, or null."""

    elicitation_request_id: Annotated[str, Meta(min_length=1)]
    action: Literal["accept", "decline", "cancel"]
    content: Raw = msgspec.field(default_factory=missing)


class CompactionItem(Struct, frozen=True, kw_only=True):
    """A summary of what came before, sealed."""

    encrypted_content: str


class ConfigurationItem(Struct, frozen=True, kw_only=True):
    """Settings that hold from here on, until another such item."""

    reasoning: ReasoningConfig | None = None
    text: TextConfig | None = None


class HostedCallItem(Struct, frozen=True, kw_only=True):
    """A call of a hosted tool. `arguments`, `output` and `model_call_id` are there when this gateway made it."""

    id: Annotated[str, Meta(min_length=1)]
    arguments: str | None = None
    output: str | None = None
    status: str | None = None
    model_call_id: Annotated[str, Meta(min_length=1)] | None = None


class TextBlock(Struct, frozen=True):
    """A piece of text inside a reasoning item."""

    text: str


class ReasoningItem(Struct, frozen=True, kw_only=True):
    """What the model thought."""

    summary: list[TextBlock] | None = None
    content: list[TextBlock] | None = None
    encrypted_content: str | None = None


class ListedTool(Struct, frozen=True, kw_only=True):
    """A tool of an MCP server."""

    name: Annotated[str, Meta(min_length=1)]
    input_schema: Raw
    description: str | None = None
    annotations: Raw = msgspec.field(default_factory=missing)


class McpListToolsItem(Struct, frozen=True, kw_only=True):
    """The tools of an MCP server, as they were."""

    server_label: str
    tools: list[ListedTool]
    error: Raw = msgspec.field(default_factory=missing)


class McpErrorBody(Struct, frozen=True, kw_only=True):
    """Why an MCP call failed; which fields are set depends on `type`."""

    type: str = "mcp_protocol_error"
    code: int = 0
    message: str = ""
    content: Raw = msgspec.field(default_factory=missing)


class McpCallItem(Struct, frozen=True, kw_only=True):
    """A call the gateway executed. `output_parts` is there when the output is more than text; `model_call_id` is what
    the model was told that the call is named, where this gateway made it."""

    id: str
    server_label: str
    name: Annotated[str, Meta(min_length=1)]
    arguments: str
    output: str | None = None
    output_parts: list[Raw] | None = None
    error: McpErrorBody | str | None = None
    status: str | None = None
    approval_request_id: str | None = None
    elicitation_request_id: str | None = None
    model_call_id: Annotated[str, Meta(min_length=1)] | None = None


# ── content parts ─────────────────────────────────────────────────────────────


class TextPart(Struct, frozen=True):
    """`input_text`, `output_text`, `text`, `summary_text`, `reasoning_text`."""

    text: str


class RefusalPart(Struct, frozen=True):
    """`refusal`."""

    refusal: str


class ImagePart(Struct, frozen=True, kw_only=True):
    """`input_image`."""

    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class FilePart(Struct, frozen=True, kw_only=True):
    """`input_file`."""

    file_data: str | None = None
    file_url: str | None = None
    file_id: str | None = None
    filename: str | None = None


# ── tools ─────────────────────────────────────────────────────────────────────


class FunctionToolBody(Struct, frozen=True, kw_only=True, rename={"asynchronous": "async"}):
    """`type: function`."""

    name: Name
    parameters: Raw = msgspec.field(default_factory=missing)
    description: str | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    asynchronous: bool | None = None
    allowed_callers: list[str] | None = None
    output_schema: Raw = msgspec.field(default_factory=missing)


class Grammar(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The format of a custom tool's input."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class CustomToolBody(Struct, frozen=True, kw_only=True, rename={"asynchronous": "async"}):
    """`type: custom`."""

    name: Name
    description: str | None = None
    format: Grammar | None = None
    defer_loading: bool | None = None
    asynchronous: bool | None = None
    allowed_callers: list[str] | None = None


class NamespaceBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`type: namespace`. Its `tools` are functions and custom tools, read one by one."""

    type: str
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    description: str | None = None
    tools: list[Raw] = msgspec.field(default_factory=list[Raw])


class SearchToolBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`type: tool_search`."""

    type: str
    execution: Literal["server", "client"] | None = None
    description: str | None = None
    parameters: Raw = msgspec.field(default_factory=missing)


class PlainToolBody(Struct, frozen=True, kw_only=True):
    """What all hosted tools have; their options are read by themselves."""

    allowed_callers: list[str] | None = None


class ToolFilter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tools of a server are meant."""

    tool_names: list[str] | None = None
    read_only: bool | None = None


class ApprovalFilters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tools of a server may be called without asking."""

    always: ToolFilter | None = None
    never: ToolFilter | None = None


class McpToolBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`type: mcp`. A slip in the name of a field that narrows what may be called must not widen it: none is unknown."""

    type: Literal["mcp"] = "mcp"
    server_label: Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}\Z")]
    server_url: str | None = None
    connector_id: str | None = None
    tunnel_id: str | None = None
    server_description: str | None = None
    authorization: str | None = None
    headers: dict[str, str] | None = None
    allowed_tools: list[str] | ToolFilter | None = None
    require_approval: Literal["always", "never"] | ApprovalFilters | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None


class ChosenTool(Struct, frozen=True, kw_only=True):
    """One of the tools an `allowed_tools` choice names."""

    type: str
    name: str | None = None
    namespace: str | None = None
    server_label: str | None = None


class ChoiceBody(Struct, frozen=True, kw_only=True):
    """A `tool_choice` that is an object."""

    type: str
    name: str | None = None
    namespace: str | None = None
    server_label: str | None = None
    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[ChosenTool], Meta(max_length=128)] | None = None


class ContextManagement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do about a context that grows too long. `compact_threshold` is in tokens."""

    type: str
    compact_threshold: Annotated[int, Meta(ge=1000)] | None = None
