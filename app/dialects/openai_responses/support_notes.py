"""What `docs/responses.md` says beside the tables of `support`: endpoints, and how things work together."""

NOTES = """## Endpoints

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

*Ours* are not in OpenAI's API. `include` on the reading endpoints, and where items are added to a conversation, shows
what it names of each item, whether or not the response was asked to include it when it was made; what it did include
is always shown. Two things are not there afterwards: `logprobs` that no engine was asked for, and anything in a stream
that is followed or read again, which has the bytes it had.

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
included, in the engine's own chat template (`/tokenize` with messages, as vLLM has it). Where no worker can say, each
within `--health-check-timeout-secs`, it is estimated, four bytes of text to a token and a thousand tokens for an image,
and `estimated` is true.

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
