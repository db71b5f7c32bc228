"""The response object: what was asked, echoed without its secrets, and how far it has come.

It is kept without `output`, which is stored as items, and gets it back whenever it is shown. All fields that the Open
Responses contract requires are always there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Raw, Struct

from app.dialects.openai_responses.events import encode
from app.dialects.openai_responses.wire import NULL, CreateResponse, TextFormat
from app.turn.errors import Failure
from app.turn.events import Finish
from app.turn.items import StoredItem
from app.turn.usage import Usage

# What of an MCP tool must never come back: it opens someone else's door.
SECRETS = frozenset(("authorization", "headers"))

_tool_fields = msgspec.json.Decoder(dict[str, Raw])


class Progress(Struct, frozen=True):
    """How far a response is: still in the making, or finished at `at` (seconds since the epoch)."""

    finish: Finish | None = None
    at: int | None = None
    queued: bool = False


QUEUED = Progress(queued=True)


def body_from(snapshot: Raw | bytes, output: Sequence[StoredItem]) -> bytes:
    """The response as JSON: a snapshot and its items."""
    items = b",".join([bytes(item.raw) for item in output])
    return b'%b,"output":[%b]}' % (bytes(snapshot).rstrip()[:-1], items)


def take(response_id: str, created_at: int, progress: Progress, echoed: bytes) -> bytes:
    """The response as JSON without its output. `echoed` is what `echo` made of the request."""
    finish = progress.finish
    status = ("queued" if progress.queued else "in_progress") if finish is None else finish.status
    fields = {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "completed_at": progress.at if status == "completed" else None,
        "status": status,
        "error": _error(finish.failure) if finish is not None and finish.failure is not None else None,
        "incomplete_details": {"reason": finish.reason} if finish is not None and status == "incomplete" else None,
        "usage": _usage(finish.usage) if finish is not None and _is_known(finish) else None,
    }
    return b"%b,%b}" % (encode(fields)[:-1], echoed)


def echo(request: CreateResponse) -> bytes:
    """What a response repeats of its request, as the members of a JSON object."""
    fields: dict[str, object] = {
        "background": request.background is True,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata or {},
        "model": request.model,
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "presence_penalty": request.presence_penalty or 0.0,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": _reasoning(request),
        "safety_identifier": request.safety_identifier,
        # There is one tier here, whichever was asked for.
        "service_tier": "default",
        "store": request.store is not False,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": _text(request),
        "tool_choice": _tool_choice(request.tool_choice),
        "tools": [_tool(raw) for raw in request.tools or ()],
        "top_logprobs": request.top_logprobs or 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": request.truncation or "disabled",
    }
    conversation = None if request.conversation_id is None else {"id": request.conversation_id}
    given = {
        "conversation": conversation,
        "expires_after": request.expires_after,
        "prompt": request.prompt,
        "prompt_cache_retention": request.prompt_cache_retention,
        "user": request.user,
    }
    return encode({**fields, **{name: value for name, value in given.items() if value is not None}})[1:-1]


def _is_known(finish: Finish) -> bool:
    # A response that broke before the model was heard has no usage, which is not the same as none.
    return finish.status in {"completed", "incomplete"} or finish.usage != Usage()


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _error(failure: Failure) -> dict[str, object]:
    code = failure.code or ("server_error" if failure.status >= 500 else "invalid_prompt")
    return {"code": code, "message": failure.message}


def _reasoning(request: CreateResponse) -> dict[str, object]:
    asked = request.reasoning
    if asked is None:
        return {"effort": None, "summary": None}
    return {"effort": asked.effort, "summary": asked.summary or asked.generate_summary}


def _tool_choice(raw: Raw) -> object:
    """The choice, with the mode that a request may leave open and a response must have."""
    if raw == NULL:
        return "auto"
    if not bytes(raw).lstrip().startswith(b"{"):
        return raw
    fields = _tool_fields.decode(raw)
    return {"mode": "auto", **fields} if fields.get("type") == Raw(b'"allowed_tools"') else raw


def _text(request: CreateResponse) -> dict[str, object]:
    asked = request.text
    given = asked.format if asked is not None else None
    verbosity = asked.verbosity if asked is not None else None
    return {"format": _format(given), "verbosity": verbosity or "medium"}


def _format(given: TextFormat | None) -> dict[str, object]:
    if given is None:
        return {"type": "text"}
    if given.type != "json_schema":
        return {"type": given.type}
    return {
        "type": given.type,
        "name": given.name,
        "description": given.description,
        "schema": given.schema,
        "strict": given.strict is True,
    }


def _tool(raw: Raw) -> dict[str, object]:
    fields: dict[str, object] = dict(_tool_fields.decode(raw))
    if fields.get("type") == Raw(b'"function"'):
        return {"description": None, "parameters": None, "strict": None, **fields}
    if fields.get("type") != Raw(b'"mcp"'):
        return fields
    shown = {name: value for name, value in fields.items() if name not in SECRETS}
    if isinstance(url := shown.get("server_url"), Raw) and url != NULL:
        shown["server_url"] = _without_secrets(msgspec.json.decode(url, type=str))
    return shown


def _without_secrets(url: str) -> str:
    """The URL without user, password, query and fragment, which is where keys are put."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
