"""A call that has asked the user: what is kept to go on with it, and only with it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from app.mcp.client import Answer
from app.mcp.failure import INVALID_PARAMS, McpFailure, broken
from app.mcp.held import Held, Holding, Talk
from app.mcp.questions import Given, Needed
from app.responses.eliciting import Asking
from app.turn.events import Reply
from app.turn.items import ToolError

# A server that never has enough is a person's time, not only ours.
MOST_ROUNDS = 10
GONE = -32000


class Suspended(Struct, frozen=True):
    """The call of `tool`, by its own name, at the server `place`. The others are as in `Needed`; `round` counts how
    often it has asked, from 1. A call that waits at the server is `held`, and found by that."""

    place: str
    tool: str
    keys: tuple[str, ...]
    state: str | None
    again: bool
    round: int
    held: str = ""


class Place(Struct, frozen=True):
    """Where a call is made, and whose it is. `tool` is its own name; `asks`: it may ask its user."""

    label: str
    place: str
    tool: str
    whose: tuple[str, str]
    asks: bool


class Make(Protocol):
    """Makes a call, or makes it again with what is `given`. The server may ask the user within it (`talk`)."""

    def __call__(self, given: Given | None, talk: Talk | None) -> Coroutine[Any, Any, Answer | Needed]: ...


_state = msgspec.json.Decoder(Suspended)


async def make_or_go_on(where: Place, holding: Holding, reply: Reply | None, make: Make) -> Answer | Asking:
    """Make the call, or go on with it as its user has answered; what it asks, where it cannot go on without.

    Raises `McpFailure`: what the call raises; for a reply to another call, or to one that is not there any more; where
    the user does not agree to what has to be done first; for a server that asks again and again.
    """
    kept = None if reply is None else _kept(where, reply)
    before = 0 if kept is None else kept.round
    if not where.asks:
        came = await make(None, None)
        assert isinstance(came, Answer)
        return came
    if reply is None or kept is None or kept.again:
        held = _held(make, None)
    elif kept.held:
        held = _taken(where, holding, kept.held)
        held.talk.answer(reply.answers)
    else:
        held = _held(make, Given(dict(zip(kept.keys, reply.answers, strict=True)), kept.state))
    came = await held.next()
    if isinstance(came, Answer):
        return came
    if before >= MOST_ROUNDS:
        await held.drop()
        raise broken(f"MCP server '{where.label}' asks the user again and again; the call was given up.")
    if isinstance(came, Needed):
        state = Suspended(where.place, where.tool, came.keys, came.state, came.again, before + 1)
        return Asking(came.questions, msgspec.json.encode(state))
    reference = await holding.keep(where.whose, held)
    state = Suspended(where.place, where.tool, (), None, False, before + 1, reference)
    return Asking(came, msgspec.json.encode(state), holding.secs)


def _held(make: Make, given: Given | None) -> Held[Answer | Needed]:
    talk = Talk()
    return Held(make(given, talk), talk)


def _taken(where: Place, holding: Holding, reference: str) -> Held[Answer | Needed]:
    held = holding.take(where.whose, reference)
    if held is None:
        message = (
            f"The call cannot go on: MCP server '{where.label}' asked the user while the call waited, and the process "
            "where it waited has stopped or is another one. Whether it took effect is unknown; it was not made again."
        )
        raise McpFailure(ToolError("mcp_protocol_error", message, GONE))
    return held


def _kept(where: Place, reply: Reply) -> Suspended:
    """What the reply goes on with. Raises `McpFailure`."""
    kept = _state.decode(reply.state)
    if (kept.place, kept.tool) != (where.place, where.tool) or not where.asks:
        label = where.label
        message = f"The call cannot go on: '{label}' is not the server any more, or not the tool, that asked the user."
        raise broken(message, INVALID_PARAMS)
    if kept.again and not all(answer.action == "accept" for answer in reply.answers):
        message = (
            f"MCP server '{where.label}' sent the user to a page first, and the user did not agree; nothing was done."
        )
        raise McpFailure(ToolError("mcp_protocol_error", message, GONE))
    return kept
