"""Agents in real time: each says what its session says, and goes on from the answer that it really got.

The texts are made of words drawn for the session, four characters a token, and a preamble is the same text for all
sessions of a kind. A conversation is a system message, then what was said in turn; where a session's context becomes
another one, a new conversation begins. It is sent in one of three ways: `chat` and `whole` send all of it each time, in
chat completions or as the items of a response; `stored` sends what is new and the id of the response before.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import msgspec

from bench.fleet_client import Outcome, ask, connect
from bench.sessions import Session, Turn

Way = Literal["chat", "whole", "stored"]

_TOKEN_CHARS = 4
_WORDS = (
    "tree",
    "path",
    "file",
    "test",
    "line",
    "call",
    "name",
    "list",
    "true",
    "none",
    "self",
    "open",
    "read",
    "done",
)


@dataclass(slots=True)
class Took:
    """A turn that was asked: whose and which it was, when it was asked, and what became of it."""

    session: int
    place: int
    asked: float
    outcome: Outcome


def words(name: str, tokens: int) -> str:
    """So many tokens of text; texts of one name begin alike."""
    rng = random.Random(name)
    head = f"{rng.getrandbits(32):08x} "
    drawn = " ".join(rng.choices(_WORDS, k=tokens))
    return (head + drawn)[: max(tokens, 1) * _TOKEN_CHARS]


@dataclass(slots=True)
class Conversation:
    """What was said so far in one version of a session, and what of it has been sent."""

    messages: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    sent: int = 0
    before: str | None = None

    def body(self, way: Way, output: int) -> tuple[str, bytes]:
        """The path and the body that ask for the next answer."""
        asked: dict[str, Any] = {"model": "simulated", "stream": True, "ignore_eos": True}
        if way == "chat":
            more = {"messages": self.messages, "max_tokens": output, "stream_options": {"include_usage": True}}
            return "/v1/chat/completions", msgspec.json.encode({**asked, **more})
        more = {"input": self.messages, "max_output_tokens": output, "store": way == "stored"}
        if way == "stored" and self.before is not None:
            more |= {"input": self.messages[self.sent :], "previous_response_id": self.before}
        return "/v1/responses", msgspec.json.encode({**asked, **more})

    def say(self, text: str) -> None:
        """The user, or a tool, says something."""
        self.messages.append({"role": "user", "content": text})

    def answered(self, outcome: Outcome) -> None:
        """The model did."""
        self.messages.append({"role": "assistant", "content": outcome.text})
        self.sent, self.before = len(self.messages), outcome.identity


def opened(one: Session, turn: Turn) -> Conversation:
    """The conversation with which a version begins, as long as its first prompt."""
    begun = Conversation([{"role": "system", "content": words(f"kind {one.kind}", one.preamble)}])
    begun.say(words(f"{one.number} {turn.version}", turn.tokens - one.preamble))
    return begun


async def live(
    client: aiohttp.ClientSession, url: str, one: Session, way: Way, span: tuple[float, float], took: list[Took]
) -> None:
    """One session, until it is over, or fails, or no more turns are to begin; they do within the `span`."""
    start, until = span
    conversation, version, before = Conversation(), -1, 0
    for place, turn in enumerate(one.turns):
        await asyncio.sleep(turn.pause)
        if time.perf_counter() >= until:
            return
        if turn.version != version:
            conversation, version = opened(one, turn), turn.version
        else:
            conversation.say(words(f"{one.number} {version} {place}", turn.tokens - before))
        output = max(turn.output, 16)
        before = turn.tokens + output
        path, body = conversation.body(way, output)
        asked = time.perf_counter()
        outcome = await ask(client, url, path, body, wanted=True)
        took.append(Took(one.number, place, asked - start, outcome))
        if outcome.how != "done":
            return
        conversation.answered(outcome)
        outcome.text = ""


async def crowd(url: str, session: Callable[[int], Session], agents: int, way: Way, secs: float) -> list[Took]:
    """So many sessions at once for `secs`, then what is under way to its end."""
    start, took, numbers = time.perf_counter(), list[Took](), itertools.count()
    span = start, start + secs

    async def slot() -> None:
        while time.perf_counter() < span[1]:
            await live(client, url, session(next(numbers)), way, span, took)

    async with connect() as client:
        await asyncio.gather(*(slot() for _ in range(agents)))
    return took
