"""What talking to a worker costs: CPU of our client beside aiohttp's, against the same worker in the same run.

`python -m bench.backend [--rounds N] [--requests N] [--streams N] [--tokens N] [--pace-ms P]`

The worker is a process of its own that answers from memory, so the CPU measured is the client's: `process_time` of
this process, event loop included. Rounds alternate between the clients; the medians are printed, and their ratio. A
stream round counts only when its chunks arrived one by one: a client that collects them would look cheap.

Rows: `request` is a small POST and its answer; `chunk` is one chunk of paced streams, as bytes; `event` is one chunk of
them all the way to turn events, parsed and decoded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))
from app.backends.chat import ChatBackend, Site
from app.backends.plain import PlainTransport
from app.backends.secure import SecureTransport
from app.backends.settings import BackendSettings
from app.http1.transport import Call, Timeouts, Transport, read_all
from app.turn.events import TextDelta, TurnDone
from app.turn.items import Message, Text
from app.turn.request import TurnRequest

TIMEOUTS = Timeouts(connect=10, first_byte=60, idle=60, total=600)
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 200}]}).encode()
HEADERS = {"content-type": "application/json"}

# A round: what to do at a URL, and how many units of work it did.
Round: TypeAlias = Callable[[str], Awaitable[int]]


# ── the worker ────────────────────────────────────────────────────────────────


class Worker(asyncio.Protocol):
    """Answers `POST /small` at once and anything else with a paced stream of chat chunks."""

    def __init__(self, tokens: int, pace: float) -> None:
        self.tokens, self.pace = tokens, pace
        self.transport: Any = None
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Part of a request, or a whole one."""
        self.buffer += data
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(rest) < length:
            return
        self.buffer = b""
        if head.startswith(b"POST /small "):
            answer = b'{"object":"chat.completion","choices":[{"message":{"content":"' + b"y" * 140 + b'"}}]}'
            self.transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)
                + answer
            )
            return
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self.say(0)

    def say(self, number: int) -> None:
        """The next token, and the end after the last."""
        if self.transport.is_closing():
            return
        fields: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        last = number == self.tokens
        delta = {} if last else {"content": f"word{number} "}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": "stop" if last else None}
        data = b"data: " + json.dumps({**fields, "choices": [choice]}).encode() + b"\n\n"
        if last:
            data += b"data: [DONE]\n\n"
        self.transport.write(b"%x\r\n%s\r\n" % (len(data), data) + (b"0\r\n\r\n" if last else b""))
        if not last:
            asyncio.get_running_loop().call_later(self.pace, self.say, number + 1)


async def work(tokens: int, pace: float) -> None:
    """Be the worker; its URL goes to stdout."""
    server = await asyncio.get_running_loop().create_server(lambda: Worker(tokens, pace), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


# ── the rounds ────────────────────────────────────────────────────────────────


async def spread(one: Callable[[], Awaitable[int]], times: int, at_once: int) -> int:
    """Do `one` so often, so many at once."""
    left = times

    async def lane() -> int:
        nonlocal left
        done = 0
        while left > 0:
            left -= 1
            done += await one()
        return done

    return sum(await asyncio.gather(*(lane() for _ in range(at_once))))


def call(url: str) -> Call:
    return Call(method="POST", url=url, headers=HEADERS, body=BODY, timeouts=TIMEOUTS)


def requests_over(transport: Transport, args: argparse.Namespace, at_once: int) -> Round:
    """Small requests over one of our clients."""

    async def one(url: str) -> int:
        answer = await transport.send(call(f"{url}/small"))
        assert len(await read_all(answer, 10_000)) > 140
        answer.release()
        return 1

    return lambda url: spread(lambda: one(url), args.requests, at_once)


def requests_bare(session: aiohttp.ClientSession, args: argparse.Namespace, at_once: int) -> Round:
    """Small requests over aiohttp as it is."""

    async def one(url: str) -> int:
        async with session.post(f"{url}/small", data=BODY, headers=HEADERS) as answer:
            assert len(await answer.read()) > 140
        return 1

    return lambda url: spread(lambda: one(url), args.requests, at_once)


def counted(arrivals: int, args: argparse.Namespace) -> int:
    """The chunks of a stream, if they came one by one."""
    if arrivals < 0.9 * args.tokens:
        raise RuntimeError(
            f"only {arrivals} arrivals of {args.tokens} chunks: the client collects them, or is too slow"
        )
    return args.tokens


def chunks_over(transport: Transport, args: argparse.Namespace) -> Round:
    """Paced streams over one of our clients, as bytes."""

    async def one(url: str) -> int:
        answer = await transport.send(call(f"{url}/stream"))
        arrivals = 0
        while await answer.read():
            arrivals += 1
        answer.release()
        return counted(arrivals, args)

    return lambda url: spread(lambda: one(url), args.streams, args.streams)


def chunks_bare(session: aiohttp.ClientSession, args: argparse.Namespace) -> Round:
    """Paced streams over aiohttp as it is."""

    async def one(url: str) -> int:
        async with session.post(f"{url}/stream", data=BODY, headers=HEADERS) as answer:
            arrivals = 0
            async for _ in answer.content.iter_any():
                arrivals += 1
        return counted(arrivals, args)

    return lambda url: spread(lambda: one(url), args.streams, args.streams)


def events_over(transport: Transport, args: argparse.Namespace) -> Round:
    """Paced streams, all the way to turn events."""
    request = TurnRequest(model="m", items=(Message("user", (Text("x" * 200),)),))

    async def one(url: str) -> int:
        backend = ChatBackend(Site(url=url), transport, BackendSettings(), lambda: "call")
        kinds = [type(event) async for event in backend.stream(request)]
        assert kinds[-1] is TurnDone
        return counted(kinds.count(TextDelta), args)

    return lambda url: spread(lambda: one(url), args.streams, args.streams)


# ── measuring ─────────────────────────────────────────────────────────────────


async def medians(url: str, rounds: Sequence[Round], times: int) -> list[float]:
    """CPU in µs a unit for each of the alternatives, the median of `times` rounds each, taken in turns."""
    for each in rounds:
        await each(url)
    costs: list[list[float]] = [[] for _ in rounds]
    for _ in range(times):
        for each, found in zip(rounds, costs, strict=True):
            begin = time.process_time()
            units = await each(url)
            found.append((time.process_time() - begin) / units * 1e6)
    return [statistics.median(found) for found in costs]


async def compare(url: str, args: argparse.Namespace) -> None:
    """Print the table."""
    plain, secure = PlainTransport(), SecureTransport()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=600)) as bare:
        table: list[tuple[str, Sequence[Round]]] = [
            (
                f"request, {at_once} at once",
                (
                    requests_over(plain, args, at_once),
                    requests_bare(bare, args, at_once),
                    requests_over(secure, args, at_once),
                ),
            )
            for at_once in (1, 16, 64)
        ]
        name = f"{args.streams} streams"
        table += [
            (f"chunk, {name}", (chunks_over(plain, args), chunks_bare(bare, args), chunks_over(secure, args))),
            (f"event, {name}", (events_over(plain, args), events_over(secure, args))),
        ]
        print(f"{'CPU in µs':24}{'ours':>9}{'aiohttp':>9}{'behind our port':>17}{'ours/aiohttp':>14}")
        for label, rounds in table:
            ours, *others = await medians(url, rounds, args.rounds)
            cells = [f"{ours:9.1f}", f"{others[0]:9.1f}" if len(others) == 2 else " " * 9, f"{others[-1]:17.1f}"]
            print(f"{label:24}{''.join(cells)}{ours / others[0]:14.2f}", flush=True)
    await plain.close()
    await secure.close()


def main() -> None:
    """Run the worker and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--pace-ms", type=float, default=20.0)
    parser.add_argument("--worker", action="store_true", help="be the worker")
    args = parser.parse_args()
    if args.worker:
        uvloop.run(work(args.tokens, args.pace_ms / 1000))
        return
    worker = subprocess.Popen([sys.executable, __file__, "--worker", *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None
        uvloop.run(compare(worker.stdout.readline().strip(), args))
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    main()
