"""The same trace through two gateways in front of the same fleet of simulated workers: real processes, real HTTP.

    python -m bench.fleet --trace conversation.jsonl --speed 1.8 --seconds 180 --smg /path/to/smg

The workers are `shepherd simulate --fleet N --engine batch`: a service model in real time, with a prefix cache. Each
gateway gets a fleet of its own that has just started, one after the other. Prompts are made of text so that equal hash
ids of the trace are equal text. A prompt is one user message; SMG is asked in chat completions, which it relays, and
Shepherd in responses, which it translates. Arrivals do not wait for answers. `--kill` kills a worker half way.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from app.simulator.service import Request
from bench.agent import cpu_seconds
from bench.routing import load
from tests.support.processes import SHEPHERD, bare_process, free_port, wait_until_ok

_BLOCK_CHARS = 2048


@dataclass(slots=True)
class Outcome:
    """What became of a request, in seconds from its arrival. `how`: done, or why not; `chunks` of text came."""

    first: float = 0.0
    ended: float = 0.0
    how: str = "lost"
    chunks: int = 0
    cached: int = 0
    tokens: int = 0


def text_of(request: Request) -> str:
    """The prompt: a block of text for each hash id, as many tokens in all as the trace says."""
    blocks = [(f"{key:x} sheep " * 256)[:_BLOCK_CHARS] for key in request.keys]
    return "".join(blocks)[: request.tokens * 4]


def body_of(request: Request, kind: str) -> tuple[str, bytes]:
    """The path and the body that ask for it."""
    text = text_of(request)
    asked = {"model": "simulated", "stream": True, "ignore_eos": True}
    if kind == "chat":
        messages = [{"role": "user", "content": text}]
        more = {"messages": messages, "max_tokens": request.output, "stream_options": {"include_usage": True}}
        return "/v1/chat/completions", json.dumps({**asked, **more}).encode()
    more = {"input": text, "max_output_tokens": max(request.output, 16), "store": False}
    return "/v1/responses", json.dumps({**asked, **more}).encode()


async def ask(session: aiohttp.ClientSession, url: str, request: Request, kind: str) -> Outcome:
    """Send one request and follow its answer."""
    path, body = body_of(request, kind)
    spoken, over, whole = {
        "chat": (b'"delta":{"content":"', b'"usage":{', b"[DONE]"),
        "responses": (
            b"event: response.output_text.delta",
            b'"type":"response.completed"',
            b'"type":"response.completed"',
        ),
    }[kind]
    outcome, began = Outcome(), time.perf_counter()
    try:
        async with session.post(url + path, data=body, headers={"content-type": "application/json"}) as answer:
            if answer.status != 200:
                outcome.how = f"status {answer.status}"
                return outcome
            failed = finished = False
            async for line in answer.content:
                if spoken in line and b'"role"' not in line:
                    outcome.first = outcome.first or time.perf_counter() - began
                    outcome.chunks += 1
                if over in line or b'"type":"response.incomplete"' in line:
                    usage = json.loads(line[6:])
                    usage = usage.get("usage") or usage["response"]["usage"]
                    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
                    outcome.cached = details["cached_tokens"]
                    outcome.tokens = usage.get("prompt_tokens") or usage["input_tokens"]
                failed = failed or b'"error":{' in line
                finished = finished or whole in line or b'"type":"response.incomplete"' in line
            outcome.ended = time.perf_counter() - began
            outcome.how = "failed" if failed else "done" if finished and outcome.first else "cut"
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome.how = type(error).__name__
    return outcome


async def replay(url: str, requests: Sequence[Request], kind: str) -> list[Outcome]:
    """Send all requests when they are due; their outcomes in the same order."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), read_bufsize=2**20
    ) as session:
        began, tasks = time.perf_counter(), list[asyncio.Task[Outcome]]()
        for request in requests:
            await asyncio.sleep(max(began + request.arrived - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(ask(session, url, request, kind)))
        return await asyncio.gather(*tasks)


@contextmanager
def fleet(options: argparse.Namespace, stack: ExitStack) -> Iterator[tuple[list[str], list[subprocess.Popen[bytes]]]]:
    """A fresh fleet; its URLs and processes. A fleet of which one is killed has a process each."""
    apart = options.kill
    base, urls, processes = free_block(options.workers), list[str](), list[subprocess.Popen[bytes]]()
    common = ["--engine", "batch", "--block-size", "64", "--cache-tokens", str(options.cache_tokens)]
    for number in range(options.workers if apart else 1):
        words = [SHEPHERD, "simulate", "--port", str(base + number), *common]
        words += [] if apart else ["--fleet", str(options.workers)]
        processes.append(stack.enter_context(bare_process(words)))
    for number in range(options.workers):
        urls.append(f"http://127.0.0.1:{base + number}")
        wait_until_ok(urls[-1] + "/health", processes[number if apart else 0])
    yield urls, processes


def free_block(count: int) -> int:
    """The first of so many ports in a row that are free now."""
    while True:
        base = free_port()
        if base + count < 65_000:
            return base


@contextmanager
def gateway(name: str, options: argparse.Namespace, urls: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """The gateway of that name in front of the workers; its URL, what it is asked in, and its process."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    kind, _, policy = name.partition(":")
    with tempfile.TemporaryDirectory() as directory:
        if kind == "shepherd":
            words = [SHEPHERD, "serve", "--port", str(port), "--data-dir", directory, "--worker-urls", *urls]
            words += ["--policy", policy or "cache_aware", "--worker-cache-tokens", str(options.cache_tokens)]
            ready, asked = "/readiness", "responses"
        else:
            words = [options.smg, "launch", "--host", "127.0.0.1", "--port", str(port), "--worker-urls", *urls]
            words += ["--policy", policy or "cache_aware", "--prometheus-port", str(free_port())]
            ready, asked = "/v1/models", "chat"
        with bare_process(words, log=Path(options.logs) / f"{kind}.log" if options.logs else None) as started:
            wait_until_ok(url + ready, started, 120)
            yield url, asked, started.pid


def report(name: str, outcomes: Sequence[Outcome], cpu: float) -> str:
    """A row of the table."""
    done = [outcome for outcome in outcomes if outcome.how == "done"]
    firsts = sorted(outcome.first for outcome in done)
    hit = sum(outcome.cached for outcome in done) / max(sum(outcome.tokens for outcome in done), 1)
    mean, count = statistics.fmean(firsts), len(firsts)
    latency = statistics.fmean(outcome.ended for outcome in done)
    cells = [f"{hit:.3f}", *(f"{value:.2f}" for value in (mean, firsts[count // 2], firsts[int(count * 0.9)]))]
    cells += [f"{firsts[int(count * 0.99)]:.2f}", f"{latency:.2f}", str(len(outcomes) - count), f"{cpu:.1f}"]
    return f"| {name} | {' | '.join(cells)} |"


async def kill_later(process: subprocess.Popen[bytes], secs: float) -> None:
    """kill -9 the worker after a while."""
    await asyncio.sleep(secs)
    process.send_signal(signal.SIGKILL)


def under_way(requests: Sequence[Request], outcomes: Sequence[Outcome]) -> int:
    """How many requests had been asked half way and were not over; those that failed then are not told from those
    that failed before, and count."""
    at = requests[-1].arrived / 2
    pairs = zip(requests, outcomes, strict=True)
    return sum(each.arrived <= at and (how.how != "done" or each.arrived + how.ended > at) for each, how in pairs)


async def run(
    url: str, requests: Sequence[Request], kind: str, victim: subprocess.Popen[bytes] | None
) -> list[Outcome]:
    """The replay, and half way the kill if there is a victim."""
    killing = None
    if victim is not None:
        killing = asyncio.create_task(kill_later(victim, requests[-1].arrived / 2))
    outcomes = await replay(url, requests, kind)
    if killing is not None:
        await killing
    return outcomes


def main(arguments: Sequence[str]) -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, required=True)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long requests arrive")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--cache-tokens", type=int, default=1_228_800)
    parser.add_argument("--smg", help="path of the smg program")
    parser.add_argument(
        "--gateways", nargs="+", default=["smg", "shepherd"], help="each with :POLICY if not cache_aware"
    )
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--logs", help="folder for the gateways' logs")
    parser.add_argument("--raw", type=Path, help="file to append every outcome to, as JSON lines")
    options = parser.parse_args(arguments)
    requests = [each for each in load(options.trace, options.speed, None) if each.arrived < options.seconds]
    print(f"{options.trace.name} x{options.speed:g}: {len(requests)} requests in {options.seconds:g} s", flush=True)
    print(
        "| gateway | hit | TTFT mean | p50 | p90 | p99 | latency | failed | CPU s |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for name in options.gateways:
        with ExitStack() as stack:
            urls, processes = stack.enter_context(fleet(options, stack))
            url, kind, pid = stack.enter_context(gateway(name, options, urls))
            before = cpu_seconds(pid)
            outcomes = asyncio.run(run(url, requests, kind, processes[-1] if options.kill else None))
            print(report(name, outcomes, cpu_seconds(pid) - before), flush=True)
            causes = {how: sum(each.how == how for each in outcomes) for how in {each.how for each in outcomes}}
            if set(causes) != {"done"}:
                print(f"  {name}: {causes}", file=sys.stderr, flush=True)
            if options.kill:
                count = under_way(requests, outcomes)
                print(f"  {name}: {count} were under way at the kill", file=sys.stderr, flush=True)
            if options.raw is not None:
                with options.raw.open("a") as file:
                    for each in outcomes:
                        file.write(json.dumps([name, each.first, each.ended, each.how, each.chunks]) + os.linesep)


if __name__ == "__main__":
    main(sys.argv[1:])
