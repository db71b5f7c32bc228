"""What goes wrong, and doing it wrong: refuse, hang, cut, fall silent, talk nonsense.

A stream is a list of frames, one for every token (empty where a token says nothing). Faults count the frames that say
something, so `cut_after: 3` lets three chunks through whatever the pace.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from msgspec import Struct

from app.simulator.engine import InEngine
from app.simulator.http import Exchange, error_body
from app.simulator.reply import Fault
from app.simulator.settings import SimulatorSettings
from app.turn.errors import GatewayError

_SOUND = Fault()
_GARBAGE = b'data: {"id": "oops", "choices": [{"index": 0, "del\n\n'


class Faults:
    """Draws what happens to each request, in the order they arrive."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self._fault = Fault(
            status=settings.fail_status,
            retry_after_secs=settings.retry_after_secs,
            hang=settings.hang,
            cut_after=settings.cut_after,
            hang_after=settings.hang_after,
            error_after=settings.error_after,
            garbage_after=settings.garbage_after,
            bad_arguments=settings.bad_arguments,
        )
        self._probability = settings.fault_probability
        self._random = random.Random(settings.seed)  # noqa: S311 - a reproducible one is wanted

    def draw(self) -> Fault:
        """The fault of the next request."""
        if self._probability < 1 and self._random.random() >= self._probability:
            return _SOUND
        return self._fault


def spoilt(arguments: str, how: str | None) -> str:
    """Arguments as a confused model writes them."""
    match how:
        case "false":
            return "false"
        case "list":
            return f"[{arguments}]"
        case "broken":
            return arguments[:-1] if arguments else "{"
        case _:
            return arguments


class Stream(Struct, frozen=True):
    """The frames of a stream: before the first token, one a token, and after the last."""

    head: bytes
    frames: Sequence[bytes]
    tail: bytes


async def perform(exchange: Exchange, work: InEngine, stream: Stream, fault: Fault) -> None:
    """Send a stream as its tokens become ready, or as far as the fault lets it."""
    await exchange.begin()
    ends, how = _end(stream, fault)
    sent, begun = 0, False
    async for ready in work.ready():
        upto = min(ready, ends)
        burst = b"".join(stream.frames[sent:upto])
        sent = upto
        if ready >= len(stream.frames) and how is None:
            await exchange.write((b"" if begun else stream.head) + burst + stream.tail, last=True)
            return
        if burst or not begun:
            await exchange.write(burst if begun else stream.head + burst)
            begun = True
        if how is not None and ready >= ends:
            break
    await _break(exchange, how)


def _end(stream: Stream, fault: Fault) -> tuple[int, str | None]:
    """After how many tokens the stream breaks, and how it does; all of them and None when it is sound."""
    wanted = [
        (after, how)
        for how in ("cut", "hang", "error", "garbage")
        if (after := getattr(fault, f"{how}_after")) is not None
    ]
    if not wanted:
        return len(stream.frames), None
    after, how = min(wanted)
    said = 0
    for index, frame in enumerate(stream.frames):
        if said >= after:
            return index, how
        said += bool(frame)
    return len(stream.frames), how if said >= after else None


async def _break(exchange: Exchange, how: str | None) -> None:
    match how:
        case "hang":
            await exchange.gone()
        case "error":
            error = GatewayError("The simulated worker failed while it was answering.", code="internal_error")
            await exchange.write(b"data: " + error_body(error) + b"\n\ndata: [DONE]\n\n", last=True)
        case "garbage":
            await exchange.write(_GARBAGE + b"data: [DONE]\n\n", last=True)
        case _:
            # Returning with an open body makes the server close the connection, which is what was wanted.
            return


async def perform_whole(exchange: Exchange, work: InEngine, made: Callable[[], bytes], fault: Fault) -> None:
    """Send an answer that is not streamed, or as much of it as the fault lets through, when its work is done."""
    async for _ in work.ready():
        pass
    await spoil(exchange, made(), fault)


async def spoil(exchange: Exchange, body: bytes, fault: Fault) -> None:
    """Send a body, or as much of it as the fault lets through."""
    after = fault.cut_after
    if fault.hang_after is not None:
        await exchange.gone()
    elif fault.error_after is not None:
        await exchange.refuse(GatewayError("The simulated worker failed while it was answering."))
    elif after is not None or fault.garbage_after is not None:
        part = body[: len(body) // 2]
        if after is None:
            await exchange.answer(part)
        else:
            length = (b"content-length", b"%d" % len(body))
            await exchange.begin(200, [(b"content-type", b"application/json"), length])
            await exchange.write(part)
    else:
        await exchange.answer(body)


async def refused(exchange: Exchange, fault: Fault) -> bool:
    """Whether a request is left hanging, which is then over. Raises the `GatewayError` it is to be answered with."""
    if fault.status is not None:
        retry = None if fault.retry_after_secs is None else float(fault.retry_after_secs)
        message = f"The simulated worker was told to answer {fault.status}."
        raise GatewayError(message, status=fault.status, code="simulated_failure", retry_after=retry)
    if fault.hang:
        await exchange.gone()
    return fault.hang
