"""What of the Responses API is supported, line by line. `docs/responses.md` is made from this table, and a test holds
it against the code that reads requests and writes streams.

Each line is a name, how it is treated, and what there is to know. A field is *honoured* when the gateway acts on it,
*forwarded* when the model or its engine decides, *accepted* when it is echoed and changes nothing, and *refused* with
code `unsupported_parameter` and its name as `param` when it cannot be had. Nothing is ignored silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from app.dialects.openai_responses.client_calls import OFFERED
from app.dialects.openai_responses.support_notes import NOTES

Status = Literal["honoured", "forwarded", "accepted", "partly", "refused"]


class Line(Struct, frozen=True):
    """One name of the API."""

    name: str
    status: Status
    note: str = ""


REQUEST: tuple[Line, ...] = (
    Line("model", "honoured", "Chooses the workers; 404 `model_not_found` when nobody serves it."),
    Line("input", "honoured", "Text of at most 10,485,760 characters, or items (below)."),
    Line("instructions", "honoured", "Come before everything else. Not inherited from a previous response."),
    Line("tools", "honoured", "See below. Not inherited."),
    Line("tool_choice", "honoured", "See below."),
    Line(
        "parallel_tool_calls", "honoured", "When false, only the first call of a turn exists, whatever the engine says."
    ),
    Line(
        "max_tool_calls",
        "honoured",
        "Bounds calls the gateway makes; further ones are dropped. At most the operator's.",
    ),
    Line(
        "previous_response_id", "honoured", "400 `previous_response_not_found` for what is unknown or was not stored."
    ),
    Line(
        "conversation",
        "honoured",
        "By id. Its items come before `input`; input and output are added to it once the response is stored. 400 "
        "`conversation_locked` while another response is made in it. Not with `previous_response_id`.",
    ),
    Line("store", "honoured", "True by default. What is not stored cannot be read or built on later."),
    Line(
        "expires_after",
        "honoured",
        "`{anchor: created_at, seconds}`: forgotten then, with its approvals. Bounded by the tenant's retention. Not "
        "in OpenAI's API.",
    ),
    Line("stream", "honoured", "Server-sent events, ended by `[DONE]`."),
    Line(
        "stream_options",
        "honoured",
        "`include_obfuscation: true` pads deltas to multiples of 64 bytes; absent: as `responses.obfuscation` says, "
        "which is false. OpenAI's default is true.",
    ),
    Line("background", "honoured", "Queued, made by any server, and polled, followed or cancelled."),
    Line("background_options", "refused", "Not yet."),
    Line("include", "honoured", "See below."),
    Line("metadata", "honoured", "At most 16 pairs, keys of 64 and values of 512 characters. Echoed and stored."),
    Line("text", "honoured", "`format` and `verbosity` go to the engine. See “Structured answers”."),
    Line(
        "reasoning",
        "partly",
        "`effort` is forwarded. Summaries are passed on where the engine makes them; none are "
        "made of raw reasoning. `context: current_turn` and other modes than `standard` are refused.",
    ),
    Line("temperature", "forwarded"),
    Line("top_p", "forwarded"),
    Line("presence_penalty", "forwarded"),
    Line("frequency_penalty", "forwarded"),
    Line("top_logprobs", "forwarded"),
    Line("max_output_tokens", "honoured", "Bounds the whole response: each turn gets what the earlier ones left."),
    Line("seed", "forwarded", "Not in OpenAI's API."),
    Line("stop", "forwarded", "Not in OpenAI's API."),
    Line(
        "truncation",
        "honoured",
        "`auto` leaves out the oldest items, a quarter at a time, when the engine says that the "
        "context is too long. `disabled`: 400 `context_length_exceeded`.",
    ),
    Line("context_management", "honoured", "`compaction` with `compact_threshold`; see “Long conversations”."),
    Line("prompt", "honoured", "A prompt stored under `/v1/prompts`; see “Prompts”."),
    Line("prompt_cache_key", "honoured", "Requests with the same key go to the same worker where that is possible."),
    Line("prompt_cache_options", "partly", "`mode` and `ttl` are accepted; `prewarm` and comparisons are refused."),
    Line("prompt_cache_retention", "accepted", "Engines keep what they keep."),
    Line("service_tier", "accepted", "There is one tier; the response says `default`."),
    Line("safety_identifier", "accepted", "Echoed."),
    Line("user", "accepted", "Echoed."),
    Line("access_programs", "refused"),
    Line("image", "partly", "`context_compression: enabled` is refused."),
    Line("moderation", "refused"),
)

TOOLS: tuple[Line, ...] = (
    Line(
        "function",
        "honoured",
        "`defer_loading` waits for a search; `output_schema` is accepted; `async: true` and "
        "callers other than `direct` are refused.",
    ),
    Line(
        "custom",
        "honoured",
        "Offered as a function with one string: a regex grammar becomes the string's pattern, a lark grammar is "
        "described, since what engines take as a grammar binds the whole answer, not a tool's input. An engine that "
        "has custom tools itself (`backends.custom_tools: custom`) is handed the tool with its grammar.",
    ),
    Line("namespace", "honoured", "The model sees `namespace__name`; items carry `name` and `namespace`."),
    Line(
        "mcp",
        "honoured",
        "Executed by the gateway. `require_approval` asks by default; `defer_loading` waits for a "
        "search. `tunnel_id` and callers other than `direct` are refused.",
    ),
    Line("tool_search", "honoured", "`execution` server (the gateway searches, by words) or client."),
    Line(
        "shell",
        "honoured",
        "Executed by the client. The model is told of the `skills` of a `local` environment; others are refused.",
    ),
    Line("local_shell", "honoured", "Executed by the client."),
    Line("apply_patch", "honoured", "Executed by the client."),
    Line("computer", "honoured", "Executed by the client."),
    Line("computer_use", "honoured", "The same as `computer`."),
    Line(
        "computer_use_preview",
        "honoured",
        "Executed by the client, one action a call. The model is told of the screen's size and the environment.",
    ),
    *(
        Line(
            name,
            "honoured",
            "Played by the MCP server whose `role` is `web_search`; refused when there is none. See “Hosted tools”.",
        )
        for name in ("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11")
    ),
    Line("file_search", "honoured", "Played by the MCP server of that role; refused when there is none."),
    Line("code_interpreter", "honoured", "Played by the MCP server of that role; refused when there is none."),
    Line(
        "image_generation",
        "partly",
        "Played by the MCP server of that role; refused when there is none. The first image that "
        "the server returns is the `result`. There are no partial images.",
    ),
    Line("programmatic_tool_calling", "refused"),
)

CHOICES: tuple[Line, ...] = (
    Line("auto", "honoured"),
    Line("none", "honoured", "A call made nevertheless never happened."),
    Line("required", "forwarded", "For the first turn."),
    Line("function", "forwarded", "By name, for the first turn."),
    Line("custom", "forwarded", "By name, for the first turn."),
    Line("mcp", "honoured", "A server, or one of its tools, for the first turn; other calls are refused."),
    Line(
        "allowed_tools",
        "honoured",
        "For the whole response. The tools stay as they are, so that the engine's cache "
        "holds; a call outside is not shown and not made, and the model is told.",
    ),
    Line("hosted and client tools by type", "forwarded", "For the first turn."),
    Line("programmatic_tool_calling", "refused"),
)

INCLUDE: tuple[Line, ...] = (
    Line(
        "reasoning.encrypted_content",
        "honoured",
        "Sealed by the gateway for its own tenant, where it is asked for; see “Sealed content”.",
    ),
    Line("message.output_text.logprobs", "forwarded"),
    Line("web_search_call.action.sources", "honoured", "The pages found in the result."),
    Line("web_search_call.results", "accepted", "The whole result is always in the item's `output`."),
    Line("file_search_call.results", "honoured"),
    Line("code_interpreter_call.outputs", "honoured", "As logs."),
    Line("message.input_image.image_url", "accepted", "Always there."),
    Line("computer_call_output.output.image_url", "accepted", "Always there."),
)

ITEMS: tuple[Line, ...] = (
    Line("message", "honoured", "`phase` is kept and shown as it came. Engines do not say one, and none is made up."),
    Line("reasoning", "honoured"),
    Line("function_call", "honoured"),
    Line(
        "function_call_output", "honoured", "Text or a list of parts. Pictures are named to models that take text only."
    ),
    Line("custom_tool_call", "honoured"),
    Line("custom_tool_call_output", "honoured"),
    Line("mcp_list_tools", "honoured", "A server that is listed in the context is not asked again."),
    Line("mcp_call", "honoured", "With `model_call_id` beyond the contract: what the model knows the call by."),
    Line("mcp_approval_request", "honoured", "Ends the response, after the turn's other calls."),
    Line("mcp_approval_response", "honoured", "Used once; 400 names `input[i]` for what is unknown, used or expired."),
    Line(
        "mcp_elicitation_request",
        "honoured",
        "Not in OpenAI's API. What a tool asks in the middle of a call; ends the response. See “Elicitation”.",
    ),
    Line(
        "mcp_elicitation_response",
        "honoured",
        "Not in OpenAI's API. Used once; 400 names the field for what is unknown, used, expired or does not fit.",
    ),
    Line("tool_search_call", "honoured"),
    Line("tool_search_output", "honoured", "Its tools stay for the rest of the conversation."),
    Line("additional_tools", "honoured", "The tools come behind all others and stay."),
    Line("shell_call", "honoured"),
    Line("shell_call_output", "honoured"),
    Line("local_shell_call", "honoured"),
    Line("local_shell_call_output", "honoured"),
    Line("apply_patch_call", "honoured"),
    Line("apply_patch_call_output", "honoured"),
    Line("computer_call", "honoured"),
    Line("computer_call_output", "honoured", "A screenshot by URL; `file_id` is refused."),
    Line(
        "web_search_call",
        "honoured",
        "With `arguments`, `output`, `model_call_id` beyond the contract; without them nothing is told to the model.",
    ),
    Line("file_search_call", "honoured", "Likewise."),
    Line("code_interpreter_call", "honoured", "Likewise."),
    Line("image_generation_call", "honoured", "Likewise."),
    Line("compaction", "honoured", "See “Long conversations”."),
    Line("compaction_trigger", "honoured", "The last item of `input`."),
    Line(
        "configuration_update",
        "honoured",
        "`reasoning.effort`, `text.format` and `text.verbosity`, until the next one or a request's own.",
    ),
    Line("item_reference", "honoured", "Any stored item; 404 for what is not there."),
    Line("program", "accepted", "Kept as it is, and not told to the model."),
    Line("program_output", "accepted", "Kept as it is, and not told to the model."),
)

_TABLES: tuple[tuple[str, Sequence[Line]], ...] = (
    ("Request", REQUEST),
    ("Tools", TOOLS),
    ("Tool choice", CHOICES),
    ("Include", INCLUDE),
    ("Items", ITEMS),
)

_INTRODUCTION = """# The Responses API

Made by `make docs` from `app/dialects/openai_responses/support.py` and `support_notes.py`; change those, not this file.

A field is *honoured* when the gateway acts on it, *forwarded* when the model or its engine decides, *accepted* when it
is echoed and changes nothing, and *refused* when it cannot be had: 400, code `unsupported_parameter`, its name as
`param`. A field that is not in the table is refused as `unknown_parameter`, and so is one within `reasoning`, `text`,
`prompt` and the other objects of a request, an `mcp` tool and its filters among them. Apart from these are the engines'
own sampling fields (`top_k`, `min_p`, `structured_outputs` …), which are forwarded, and what clients add for their own
books (`client_metadata`, `litellm_metadata` …), which is read by nobody. Of a function, a custom tool, a tool choice
and an item, fields that nobody knows are kept and shown, and change nothing; of other tools they are refused. An item
of a type that is not in the table is kept as it is, and not told to the model; a content part of such a type goes to
the engine as it is, which may know it. `prompt_cache_breakpoint` of a part is accepted.
"""


def document() -> str:
    """`docs/responses.md`."""
    tables = "\n".join(_table(title, lines) for title, lines in _TABLES)
    offered = "\n".join(_offer(kind) for kind in OFFERED)
    return f"{_INTRODUCTION}\n{tables}\n{NOTES}\n{offered}"


def _table(title: str, lines: Sequence[Line]) -> str:
    rows = "\n".join(f"| `{line.name}` | {line.status} | {line.note} |" for line in lines)
    return f"## {title}\n\n| name | status | |\n|---|---|---|\n{rows}\n"


def _offer(kind: str) -> str:
    spec = next(spec for spec in OFFERED.values() if spec.kind == kind)
    schema = msgspec.json.format(bytes(spec.parameters), indent=2).decode()
    return f"### `{kind}`\n\n`{spec.name}`: {spec.description}\n\n```json\n{schema}\n```\n"
