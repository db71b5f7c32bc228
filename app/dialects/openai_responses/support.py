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
        "`include_obfuscation: true` pads deltas to multiples of 64 bytes; false when absent.",
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
        "Offered as a function with one string. A regex grammar becomes the string's pattern, a lark "
        "grammar is described: handing it to the engine would bind the whole answer, not the tool's input.",
    ),
    Line("namespace", "honoured", "The model sees `namespace__name`; items carry `name` and `namespace`."),
    Line(
        "mcp",
        "honoured",
        "Executed by the gateway. `require_approval` asks by default; `defer_loading` waits for a "
        "search. `tunnel_id` and callers other than `direct` are refused.",
    ),
    Line("tool_search", "honoured", "`execution` server (the gateway searches, by words) or client."),
    Line("shell", "honoured", "Executed by the client. Environments other than `local` are refused."),
    Line("local_shell", "honoured", "Executed by the client."),
    Line("apply_patch", "honoured", "Executed by the client."),
    Line("computer", "honoured", "Executed by the client."),
    Line("computer_use", "honoured", "The same as `computer`."),
    Line("computer_use_preview", "honoured", "Executed by the client, one action a call."),
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
    Line("reasoning.encrypted_content", "honoured", "Sealed by the gateway for its own tenant; see “Sealed content”."),
    Line("message.output_text.logprobs", "forwarded"),
    Line("web_search_call.action.sources", "honoured", "The pages found in the result."),
    Line("web_search_call.results", "accepted", "The whole result is always in the item's `output`."),
    Line("file_search_call.results", "honoured"),
    Line("code_interpreter_call.outputs", "honoured", "As logs."),
    Line("message.input_image.image_url", "accepted", "Always there."),
    Line("computer_call_output.output.image_url", "accepted", "Always there."),
)

ITEMS: tuple[Line, ...] = (
    Line("message", "honoured"),
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
        "`reasoning.effort` and `text.format`, until the next one or a request's own.",
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

Made by `make docs` from `app/dialects/openai_responses/support.py`; change that, not this file.

A field is *honoured* when the gateway acts on it, *forwarded* when the model or its engine decides, *accepted* when it
is echoed and changes nothing, and *refused* when it cannot be had: 400, code `unsupported_parameter`, its name as
`param`. A field that is not in the table is refused as `unknown_parameter`, and so is one within `reasoning`, `text`,
`prompt` and the other objects of a request, an `mcp` tool and its filters among them. Apart from these are the engines'
own sampling fields (`top_k`, `min_p`, `structured_outputs` …), which are forwarded, and what clients add for their own
books (`client_metadata`, `litellm_metadata` …), which is read by nobody. Of a function, a custom tool, a tool choice
and an item, fields that nobody knows are kept and shown, and change nothing. An item of a type that is not in the table
is kept as it is, and not told to the model; a content part of such a type goes to the engine as it is, which may know
it. `prompt_cache_breakpoint` of a part is accepted.
"""

_NOTES = """## Endpoints

| method and path | |
|---|---|
| `POST /v1/responses` | make a response; also as a WebSocket |
| `GET /v1/responses` | list stored responses: `limit`, `order`, `after`, `model`, `status`, `conversation`. *Ours* |
| `GET`, `DELETE /v1/responses/{id}` | read (`stream=true&starting_after=N` follows), forget |
| `POST /v1/responses/{id}/cancel` | end one that is made in the background |
| `GET /v1/responses/{id}/input_items` | what it was made from |
| `POST /v1/responses/input_tokens` | count a request's input |
| `POST /v1/responses/compact` | a shorter context that stands for a conversation |
| `POST /v1/conversations`, `GET`, `POST`, `DELETE /v1/conversations/{id}` | begin, read, replace metadata, forget |
| `GET /v1/conversations` | list conversations: `limit`, `order`, `after`. *Ours* |
| `POST`, `GET /v1/conversations/{id}/items`, `GET`, `DELETE …/items/{id}` | add (at most 20), list, read, take out |
| `POST`, `GET /v1/prompts`, `GET`, `DELETE /v1/prompts/{id}`, `POST …/versions` | keep prompts. *Ours* |

*Ours* are not in OpenAI's API. `include` on the reading endpoints is checked; it shows nothing more, because what a
response did not include when it was made is not kept, and all that is kept is shown.

`personality` of `input_tokens`, and `prompt_cache_key`, `prompt_cache_retention` and `service_tier` of `compact`, are
accepted. OpenAI's webhooks, files and vector stores are not there.

## Streams

Events are numbered from 0; those of a stored response are committed before they are sent. A client that lost its
connection gets the rest, byte for byte and from any server, with `GET /v1/responses/{id}?stream=true&starting_after=N`:
the events after number N, or only `[DONE]` when N was the last. Where there is no event N it is refused with a 400,
`param` being `starting_after`; where that turns out only when the response is over, the stream is an `error` that says
the same. The stream of a response that was cancelled ends without an event for it and without `[DONE]`. After
`responses.keepalive_secs` of silence there is a comment (`: keepalive`). A stream that cannot go on, though its
response may, ends with an `error` that has its `code`, `message` and `param` at the top and in `error`, where the two
contracts look for them.

The header `x-shepherd-profile: openai` or `openresponses` chooses the contract that events follow (default:
`responses.stream_profile`): the second says `response.reasoning.delta` for `response.reasoning_text.delta`. All else is
the same. `shepherd check-stream < file` says what is wrong with a recorded stream.

## Hosted tools

What a request sets about a hosted tool is told to the MCP server that plays it: `filters`, `user_location`,
`search_context_size`, `search_content_types` and `external_web_access` of `web_search`; `vector_store_ids`,
`max_num_results`, `filters` and `ranking_options` of `file_search`; `container` of `code_interpreter`; all of
`image_generation`. An option is an argument of the call where the server's tool has one of that name, and stands there
whatever the model says; the others are in the call's `_meta["shepherd/tool-options"]`. Any other option is refused as
`unknown_parameter`, with its path.

## Conversations

A response in a conversation builds on all its items. Once it has completed, or ended incomplete, and is stored, its
input and output are part of the conversation; one that failed, was cancelled, or has `store: false` leaves it as it
was. A response holds its conversation while it is made, stored or not: other responses, and whoever would change the
items or delete it, get 400 `conversation_locked`. An item that is taken out, and a conversation that is forgotten, are
gone for later responses; those that were made before keep what they were made from. Items of a conversation do not
expire.

## Prompts

A prompt has `instructions`, `input` (text or items) and, for its variables, values that hold where a request gives
none. `{{name}}` is a variable. Text goes anywhere; an `input_image` or `input_file` goes into the text of a message and
becomes a part of its own there. A request's own `instructions` win, and its own `input` comes after the prompt's.
Versions are numbered from 1; a request without `version` gets the newest, and the response says which that was. What is
wrong is named: `prompt.id`, `prompt.version`, `prompt.variables.name`.

## Requests that may be repeated

A `POST /v1/responses` with the header `Idempotency-Key` makes its response once. The same bytes with the same key get
that response, for 24 hours: as JSON when it is over, or as the same stream from its first event, also while it runs and
at any server. Another body: 409 `idempotency_key_reused`. A request that fails before its response began (it is wrong,
or nobody serves the model) leaves its key free; a response that failed *is* the response. With `store: false`, or once
the response was deleted, there is nothing to show after its end: 409 `idempotent_response_gone`, and it is not made
again. Keys belong to the tenant.

## Counting and compacting

`input_tokens` is the length of the first model turn's prompt: context, instructions and tools, those of MCP servers
included, in the engine's own chat template (`/tokenize` with messages, as vLLM has it). Where no worker can say, it is
estimated, four bytes of text to a token and a thousand tokens for an image, and `estimated` is true.

`compact` asks the model for a summary and answers with what people said and one sealed `compaction` item, to be sent as
`input` from then on. Nothing is stored; the answer's id is no `previous_response_id`.

## Approvals

A call that needs approval ends the response, which completes with an `mcp_approval_request` after everything else of
its turn ran. The next request answers with an `mcp_approval_response`, and names the server among its `tools` again,
since credentials are not kept. The gateway then makes exactly that call, with the arguments that were shown, before the
model is asked anything; its `mcp_call` carries `approval_request_id`. An answer is used up by the request that brings
it, on any server and after any restart; a second one is refused (`approval_already_used`, `approval_expired`,
`approval_not_found`). What was declined, or never answered, is told to the model.

## Elicitation

A tool may ask the user something in the middle of a call, where its server's rules have `elicitation` (see
[MCP](mcp.md#elicitation)). The call then ends without a result (`failed`), and the response completes with an
`mcp_elicitation_request` for each thing that is asked, after everything else of the turn ran. It has the `id`, the
call's `server_label`, `name`, `arguments` and `mcp_call_id`, the `mode` and `message`, and a `requested_schema` (mode
`form`) or a `url` (mode `url`). The next request answers all that a call asks, each with an `mcp_elicitation_response`:
`elicitation_request_id`, `action` (`accept`, `decline` or `cancel`), and `content`, an object that fits the schema, for
a form that is accepted. It names the server among its `tools` again. The gateway goes on with exactly that call before
the model is asked anything; its `mcp_call` carries `elicitation_request_id`. Answers are used up by the request that
brings them (`elicitation_already_answered`, `elicitation_expired`, `elicitation_not_found`, `elicitation_incomplete`,
`elicitation_content_invalid`). What is never answered is told to the model.

## Structured answers

`text.format` goes to the engine. Where `strict` is true the finished answer is checked against the schema; one that
does not fit makes the response `failed` with code `output_schema_mismatch`; the answer is still in `output`. Not
checked are patterns and the uniqueness of items. Without `strict` nothing is promised, and nothing is checked.

## Long conversations

A `compaction_trigger` makes a response of exactly one `compaction` item: a summary by the model, sealed.
`context_management` does the same before a turn, once in a response, when the context reaches `compact_threshold`
tokens. Until the engine has counted, four bytes of text are taken for a token. In a context with a `compaction` item,
what people said before it stays, and the summary stands for everything else.

## Sealed content

`encrypted_content` is encrypted (AES-256-GCM) with a key made from the tenant's own, which goes with the tenant, and
the server's, which is `responses.sealing_key` or made in the data directory. What another tenant or another service has
sealed is refused with code `invalid_encrypted_content`.

## What the model is offered for tools the client executes
"""


def document() -> str:
    """`docs/responses.md`."""
    tables = "\n".join(_table(title, lines) for title, lines in _TABLES)
    offered = "\n".join(_offer(kind) for kind in OFFERED)
    return f"{_INTRODUCTION}\n{tables}\n{_NOTES}\n{offered}"


def _table(title: str, lines: Sequence[Line]) -> str:
    rows = "\n".join(f"| `{line.name}` | {line.status} | {line.note} |" for line in lines)
    return f"## {title}\n\n| name | status | |\n|---|---|---|\n{rows}\n"


def _offer(kind: str) -> str:
    spec = next(spec for spec in OFFERED.values() if spec.kind == kind)
    schema = msgspec.json.format(bytes(spec.parameters), indent=2).decode()
    return f"### `{kind}`\n\n`{spec.name}`: {spec.description}\n\n```json\n{schema}\n```\n"
