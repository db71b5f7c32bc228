"""A client of a gateway: asks over HTTP, and says what became of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

_decode = msgspec.json.decode

# What each dialect's stream says: a piece of the answer, its use of tokens, and that it is whole.
_SIGNS: Mapping[str, tuple[bytes, bytes, bytes]] = {
    "/v1/chat/completions": (b'"delta":{"content":"', b'"usage":{', b"[DONE]"),
    "/v1/responses": (
        b"event: response.output_text.delta",
        b'"type":"response.completed"',
        b'"type":"response.completed"',
    ),
}


@dataclass(slots=True)
class Outcome:
    """What became of a request, in seconds from its arrival. `how`: done, or why not; `chunks` of text came.

    `text` is the answer where it was wanted, and `identity` the response's id.
    """

    first: float = 0.0
    ended: float = 0.0
    how: str = "lost"
    chunks: int = 0
    cached: int = 0
    tokens: int = 0
    text: str = ""
    identity: str = ""


def connect() -> aiohttp.ClientSession:
    """A client without limits of its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), read_bufsize=2**20
    )


async def ask(session: aiohttp.ClientSession, url: str, path: str, body: bytes, *, wanted: bool = False) -> Outcome:
    """Send one request and follow its answer, whose text is kept where it is `wanted`."""
    outcome, began = Outcome(), time.perf_counter()
    try:
        async with session.post(url + path, data=body, headers={"content-type": "application/json"}) as answer:
            if answer.status != 200:
                outcome.how = f"status {answer.status}"
                return outcome
            await _follow(answer, path, outcome, began, wanted=wanted)
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome.how = type(error).__name__
    return outcome


async def _follow(answer: aiohttp.ClientResponse, path: str, outcome: Outcome, began: float, *, wanted: bool) -> None:
    spoken, over, whole = _SIGNS[path]
    failed = finished = False
    pieces: list[str] = []
    async for line in answer.content:
        if spoken in line and b'"role"' not in line:
            outcome.first = outcome.first or time.perf_counter() - began
            outcome.chunks += 1
            if wanted and line.startswith(b"data: "):
                pieces.append(_decode(line[6:])["choices"][0]["delta"]["content"])
        if over in line or b'"type":"response.incomplete"' in line:
            _used(_decode(line[6:]), outcome)
        failed = failed or b'"error":{' in line
        finished = finished or whole in line or b'"type":"response.incomplete"' in line
    outcome.ended = time.perf_counter() - began
    outcome.how = "failed" if failed else "done" if finished and outcome.first else "cut"
    if pieces:
        outcome.text = "".join(pieces)


def _used(event: dict[str, Any], outcome: Outcome) -> None:
    response = event.get("response")
    usage = event["usage"] if response is None else response["usage"]
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    outcome.cached = details["cached_tokens"]
    outcome.tokens = usage.get("prompt_tokens") or usage["input_tokens"]
    if response is not None:
        outcome.identity = response["id"]
        parts = (part for item in response["output"] for part in item.get("content", ()))
        outcome.text = "".join(part.get("text", "") for part in parts)
