"""A run as a stream of server-sent events. The run does not live here: losing the client loses only the audience."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from litestar.types import Receive, Send
from msgspec import Struct

from app.api.errors import error_type
from app.api.padding import pad
from app.api.services import RunView
from app.dialects.openai_responses.encode import DONE, Event, frame
from app.dialects.openai_responses.events import error_event
from app.responses.following import no_event
from app.turn.errors import GatewayError

_log = logging.getLogger(__name__)

TERMINAL = frozenset(("response.completed", "response.incomplete", "response.failed"))

_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Manner(Struct, frozen=True):
    """How events are sent: those after number `after`, with a comment after so many silent seconds, padded or not."""

    keepalive_secs: float
    after: int = -1
    padded: bool = False


async def follow(run: RunView, receive: Receive, send: Send, manner: Manner) -> None:
    """Send the run's events until it is over or the client is gone. A silent run sends comments meanwhile.

    What the run goes on without is said to this client as an `error`, which is the last it hears.
    """
    # A task of its own is woken for each event without resuming all that stands around a request.
    await asyncio.create_task(_follow(run, receive, send, manner))


async def _follow(run: RunView, receive: Receive, send: Send, manner: Manner) -> None:
    audience = _Audience(send, manner.after, padded=manner.padded)
    watch = asyncio.create_task(_watch(run, receive, audience, manner.keepalive_secs))
    over = heard = False
    try:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        async for batch in run.follow(manner.after):
            if watch.done():
                return
            over, heard = await audience.send_events(batch), True
        if not heard and manner.after >= 0:
            over = await _is_end(run, manner.after)
        await audience.finish(DONE if over else b"")
        over = True
    except GatewayError as error:
        _log.warning("a stream ends before its response: %s", error.message)
        await audience.finish(frame(error_event(audience.last_number + 1, error, error_type(error.status))))
    finally:
        watch.cancel()
        if not over:
            run.detach()


async def _is_end(run: RunView, number: int) -> bool:
    """Whether event `number` is the end of a response that is over: who has that has everything.

    Raises `InvalidRequest` when there never was such an event.
    """
    end: bool | None = None
    async for batch in run.follow(number - 1):
        end = batch[-1].type in TERMINAL
    if end is None:
        raise no_event(number)
    return end


class _Audience:
    """The sending side: frames out, and when anything was last sent."""

    def __init__(self, send: Send, after: int, *, padded: bool) -> None:
        self._send = send
        self._padded = padded
        self.last_number = after
        self.last = asyncio.get_running_loop().time()

    async def send_events(self, batch: Sequence[Event]) -> bool:
        """Send a batch; whether it ended the response."""
        shown = [pad(event) for event in batch] if self._padded else batch
        await self.write(b"".join([frame(event) for event in shown]))
        self.last_number = batch[-1].sequence_number
        return batch[-1].type in TERMINAL

    async def write(self, data: bytes) -> None:
        self.last = asyncio.get_running_loop().time()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


async def _watch(run: RunView, receive: Receive, audience: _Audience, keepalive_secs: float) -> None:
    """End when the client is gone; until then break silences."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            async with asyncio.timeout(max(0.01, audience.last + keepalive_secs - loop.time())):
                if (await receive())["type"] == "http.disconnect":
                    run.detach()
                    return
        except TimeoutError:
            if loop.time() - audience.last >= keepalive_secs:
                await audience.write(b": keepalive\n\n")
