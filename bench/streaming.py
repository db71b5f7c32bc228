"""What a token costs on its way through a gateway: CPU for each chunk of paced streams, many of them at once.

    python -m bench.streaming [--smg PATH] [--beside PATH] [--rounds N] [--streams N] [--tokens N] [--pace-ms P]

The worker is `shepherd simulate`, which says a token every P ms to each stream: each by itself (`--engine paced`), or
to all of them in one step, as engines do (`--engine batch`). Shepherd is asked for responses, stored on SQLite and not
stored; SMG for chat completions, which it relays. `--beside` names the `shepherd` command of another checkout. All run
side by side and take turns, so that what the machine does meanwhile meets all of them.

CPU is that of the gateway's process, threads included, from when all streams speak until the first one is about to
end, so that neither beginnings nor ends are in it. A token is what came in one event: where the gateway, the worker or
this client was too slow, events came late or together, and `of pace` says how many of those due there were.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, cast

import uvloop

from bench.agent import cpu_seconds
from tests.support.ports import free_port
from tests.support.processes import SHEPHERD, bare_process

# How far into a stream the window begins, and how long before its end it is over, in tokens.
_MARGIN = 20


class Contender(NamedTuple):
    """A running gateway, and how it is asked: a path, a body, and what stands once in each event that has a token."""

    name: str
    port: int
    pid: int
    path: str
    body: bytes
    sign: bytes


class Sample(NamedTuple):
    """CPU in µs a token, and the share of the tokens that were due."""

    cpu: float
    kept: float


class Stream(asyncio.Protocol):
    """Asks once, and counts the tokens that come."""

    def __init__(self, who: Contender) -> None:
        self.count = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._who = who
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        who = self._who
        head = f"POST {who.path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-type: application/json\r\n"
        cast("asyncio.Transport", transport).write(f"{head}content-length: {len(who.body)}\r\n\r\n".encode() + who.body)

    def data_received(self, data: bytes) -> None:
        """Count, also a sign that came in two pieces."""
        data = self._tail + data
        self.count += data.count(self._who.sign)
        # Too short for a whole sign, so that none is counted twice.
        self._tail = data[1 - len(self._who.sign) :]

    def connection_lost(self, exc: Exception | None) -> None:
        """That was all."""
        if not self.over.done():
            self.over.set_result(None)


async def until(condition: Callable[[], bool], pace: float) -> None:
    """Return once it holds."""
    while not condition():  # noqa: ASYNC110 - a count has no event
        await asyncio.sleep(pace)


async def sample(who: Contender, args: argparse.Namespace) -> Sample:
    """A round: all streams at once, begun within the time of one token. Raises when one was not answered in full."""
    loop, pace = asyncio.get_running_loop(), args.pace_ms / 1000
    streams: list[Stream] = []
    for _ in range(args.streams):
        streams.append((await loop.create_connection(lambda: Stream(who), "127.0.0.1", who.port))[1])
        await asyncio.sleep(pace / args.streams)
    await until(lambda: min(each.count for each in streams) >= _MARGIN, pace)
    before, began, had = cpu_seconds(who.pid), time.perf_counter(), sum(each.count for each in streams)
    await until(lambda: max(each.count for each in streams) >= args.tokens - _MARGIN, pace)
    spent = cpu_seconds(who.pid) - before
    came, secs = sum(each.count for each in streams) - had, time.perf_counter() - began
    await asyncio.gather(*(each.over for each in streams))
    if any(each.count < args.tokens * 0.5 for each in streams):
        raise RuntimeError(f"{who.name}: only {min(each.count for each in streams)} events of {args.tokens} tokens")
    return Sample(spent * 1e6 / came, came * pace / secs / args.streams)


async def measure(contenders: Sequence[Contender], args: argparse.Namespace) -> None:
    """All rounds, and a line for each gateway."""
    rows: dict[str, list[Sample]] = {who.name: [] for who in contenders}
    for round_ in range(args.rounds + 1):
        for who in contenders:
            took = await asyncio.wait_for(sample(who, args), 10 + 4 * args.tokens * args.pace_ms / 1000)
            if round_:  # the first one is to warm up
                rows[who.name].append(took)
    base = statistics.median(each.cpu for each in rows[contenders[-1].name])
    print(f"{'gateway':28} CPU µs/token: median, least, most  of pace  times the last")
    for name, took in rows.items():
        cpu = sorted(each.cpu for each in took)
        median, kept = statistics.median(cpu), statistics.median(each.kept for each in took)
        print(f"{name:28} {median:20.1f} {cpu[0]:6.1f} {cpu[-1]:6.1f}  {kept:7.2f}  {median / base:14.2f}", flush=True)


def asked(tokens: int, *, stored: bool) -> bytes:
    """The body of a response."""
    body = {"model": "simulated", "input": "Tell a story.", "stream": True, "store": stored}
    return json.dumps({**body, "max_output_tokens": tokens, "ignore_eos": True}).encode()


def asked_in_chat(tokens: int) -> bytes:
    """The body of a chat completion."""
    body = {"model": "simulated", "messages": [{"role": "user", "content": "Tell a story."}], "stream": True}
    return json.dumps({**body, "max_tokens": tokens, "ignore_eos": True}).encode()


def start_ours(name: str, command: Path, worker: str, home: Path, stack: ExitStack, tokens: int) -> list[Contender]:
    """A gateway of ours, asked in two ways."""
    port, data = free_port(), home / name
    data.mkdir()
    words = [command, "serve", "--port", str(port), "--data-dir", data, "--worker-urls", worker]
    ready = f"http://127.0.0.1:{port}/readiness"
    made = stack.enter_context(bare_process(words, ready=ready, cwd=data, log=home / f"{name}.log"))
    return [
        Contender(
            f"{name}, {'stored' if stored else 'not stored'}",
            port,
            made.pid,
            "/v1/responses",
            asked(tokens, stored=stored),
            b"event: response.output_text.delta\n",
        )
        for stored in (True, False)
    ]


def start_smg(command: Path, worker: str, home: Path, stack: ExitStack, tokens: int) -> Contender:
    """SMG, which is ready when it knows its worker."""
    port = free_port()
    words = [command, "launch", "--host", "127.0.0.1", "--port", str(port), "--worker-urls", worker]
    words += ["--policy", "cache_aware", "--prometheus-port", str(free_port()), "--log-level", "error"]
    ready = f"http://127.0.0.1:{port}/v1/models"
    made = stack.enter_context(bare_process(words, ready=ready, cwd=home, log=home / "smg.log"))
    sign = b'"delta":{"content":'
    return Contender("smg, chat", port, made.pid, "/v1/chat/completions", asked_in_chat(tokens), sign)


def main() -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smg", type=Path, help="the smg binary")
    parser.add_argument("--beside", type=Path, help="the shepherd command of another checkout")
    parser.add_argument("--engine", choices=("paced", "batch"), default="paced")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=320)
    parser.add_argument("--pace-ms", type=float, default=25.0)
    args = parser.parse_args()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        worker = f"http://127.0.0.1:{(port := free_port())}"
        words = [SHEPHERD, "simulate", "--port", str(port), "--engine", args.engine]
        words += ["--token-ms", str(args.pace_ms), "--step-ms", str(args.pace_ms)]
        stack.enter_context(bare_process(words, ready=f"{worker}/health"))
        contenders = start_ours("shepherd", SHEPHERD, worker, home, stack, args.tokens)
        if args.beside:
            contenders += start_ours("beside", args.beside, worker, home, stack, args.tokens)
        if args.smg:
            contenders.append(start_smg(args.smg, worker, home, stack, args.tokens))
        else:
            print("SMG is not measured: no --smg PATH was given (pip install smg, in an environment of its own)")
        uvloop.run(measure(contenders, args))


if __name__ == "__main__":
    main()
