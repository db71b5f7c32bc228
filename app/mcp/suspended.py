"""A call that has asked the user: what is kept to go on with it, and only with it. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from app.mcp.failure import INVALID_PARAMS, McpFailure, broken
from app.mcp.questions import Given, Needed
from app.responses.eliciting import Asking
from app.turn.events import Answer, Reply
from app.turn.items import ToolError

# A server that never has enough is a person's time, not only ours.
MOST_ROUNDS = 10
DECLINED = -32000


class Suspended(Struct, frozen=True):
    """The call of `tool`, by its own name, at the server `place`. The others are as in `Needed`; `round` counts how
    often it has asked, from 1."""

    place: str
    tool: str
    keys: tuple[str, ...]
    state: str | None
    again: bool
    round: int


class Resumed(Struct, frozen=True):
    """What a call goes on with. `given` is None for one that is made again from the beginning."""

    given: Given | None
    round: int


_state = msgspec.json.Decoder(Suspended)


def suspend(label: str, place: str, tool: str, needed: Needed, before: int) -> Asking:
    """What the call comes to instead of a result. `before` counts the rounds it has had. Raises `McpFailure` for one
    too many."""
    if before >= MOST_ROUNDS:
        raise broken(f"MCP server '{label}' asks the user again and again; the call was given up.")
    state = Suspended(place, tool, needed.keys, needed.state, needed.again, before + 1)
    return Asking(needed.questions, msgspec.json.encode(state))


def resume(label: str, place: str, tool: str, reply: Reply) -> Resumed:
    """What goes on, and with what.

    Raises `McpFailure` where it would be another call, or where the user did not agree to what has to be done first.
    """
    kept = _state.decode(reply.state)
    if (kept.place, kept.tool) != (place, tool):
        message = f"The call cannot go on: '{label}' is not the server, or this is not the tool, that asked the user."
        raise broken(message, INVALID_PARAMS)
    if not kept.again:
        return Resumed(Given(dict(zip(kept.keys, reply.answers, strict=True)), kept.state), kept.round)
    if not all(_agrees(answer) for answer in reply.answers):
        message = f"MCP server '{label}' sent the user to a page first, and the user did not agree; nothing was done."
        raise McpFailure(ToolError("mcp_protocol_error", message, DECLINED))
    return Resumed(None, kept.round)


def _agrees(answer: Answer) -> bool:
    return answer.action == "accept"
