"""What a server asks the user, from the SDK's types and back. Pure.

The newer protocol's servers answer a call with what they need to know, and are called again with the answers and their
own state. Older ones may refuse a call with addresses that the user has to visit first (-32042); once that is done the
call is simply made again. What a server may say here ends up before a person, so it is looked at like a definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from mcp import MCPError, types
from msgspec import Struct, json
from pydantic import ValidationError

from app.mcp.definitions import seen_by_people
from app.mcp.failure import broken
from app.turn.events import Answer
from app.turn.items import Question

MOST_QUESTIONS = 8
LONGEST_MESSAGE = 4_000
LONGEST_SCHEMA = 16_384
LONGEST_URL = 2_048
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


class Needed(Struct, frozen=True):
    """What a server needs before it goes on with a call. `keys` are its own names of the questions, and `state` is
    handed back to it as it is. `again`: the call is made again from the beginning, without answers."""

    questions: tuple[Question, ...]
    keys: tuple[str, ...] = ()
    state: str | None = None
    again: bool = False


class Given(Struct, frozen=True):
    """What a call is gone on with: the answers by the server's names of the questions, and its state."""

    answers: Mapping[str, Answer]
    state: str | None


def needed(label: str, result: types.InputRequiredResult) -> Needed:
    """What a call's result says is needed. Raises `McpFailure` for what nobody should be asked."""
    asked = result.input_requests or {}
    return Needed(
        questions=_few(label, [_question(label, request) for request in asked.values()]),
        keys=tuple(asked),
        state=result.request_state,
    )


def visits(label: str, error: MCPError) -> Needed:
    """What has to be visited, as the error of a call says. Raises `McpFailure` for what nobody should be asked."""
    try:
        asked = types.ElicitationRequiredErrorData.model_validate(error.data).elicitations
    except ValidationError:
        raise broken(f"MCP server '{label}' asks the user to visit something, and does not say what.") from None
    return Needed(_few(label, [question(label, each) for each in asked]), again=True)


def question(label: str, asked: types.ElicitRequestParams) -> Question:
    """One question. Raises `McpFailure` for what nobody should be asked."""
    if len(asked.message) > LONGEST_MESSAGE or not seen_by_people(asked.message):
        raise broken(f"MCP server '{label}' asks the user something that is too long, or cannot be seen as it is.")
    if isinstance(asked, types.ElicitRequestURLParams):
        return Question(asked.message, url=_address(label, asked.url))
    schema = json.encode(asked.requested_schema).decode()
    if len(schema) > LONGEST_SCHEMA or asked.requested_schema.get("type") != "object":
        raise broken(f"MCP server '{label}' asks the user for something that is no form, or too large for one.")
    return Question(asked.message, schema)


def responses(given: Given | None) -> dict[str, Any] | None:
    """The answers as the server gets them; None where there are none to give."""
    if given is None or not given.answers:
        return None
    return {key: response(answer) for key, answer in given.answers.items()}


def response(answer: Answer) -> types.ElicitResult:
    """One answer."""
    content = json.decode(answer.content, type=dict[str, Any]) if answer.content else None
    return types.ElicitResult(action=answer.action, content=content)


def _question(label: str, request: types.InputRequest) -> Question:
    if not isinstance(request, types.ElicitRequest):
        raise broken(f"MCP server '{label}' asks for more than the user's input, which is not supported.")
    return question(label, request.params)


def _few(label: str, asked: list[Question]) -> tuple[Question, ...]:
    if not 0 < len(asked) <= MOST_QUESTIONS:
        raise broken(f"MCP server '{label}' asks the user nothing, or more than {MOST_QUESTIONS} things at once.")
    return tuple(asked)


def _address(label: str, url: str) -> str:
    """The address, if a person may be sent there: what it says is where it leads, and nobody listens on the way."""
    wrong = f"MCP server '{label}' sends the user to an address that"
    if len(url) > LONGEST_URL or not url.isascii() or any(ord(each) <= 32 or each in "\\\x7f" for each in url):
        raise broken(f"{wrong} is too long, or holds what an address does not.")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise broken(f"{wrong} cannot be read.") from None
    if not host or parts.username is not None or parts.password is not None:
        raise broken(f"{wrong} has no host, or holds credentials.")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise broken(f"{wrong} is not https.")
    return url
