"""The same requests through gateways in front of the same fleet of simulated workers: real processes, real HTTP.

    python -m bench.fleet --trace conversation.jsonl --speed 1.8 --seconds 180 --smg /path/to/smg
    python -m bench.fleet --agents 24 --seconds 240 --smg /path/to/smg

The workers are `shepherd simulate --fleet N --engine batch`: a service model in real time, with a prefix cache. Each
gateway gets a fleet of its own that has just started, one after the other. Prompts are made of text so that equal hash
ids of the trace are equal text. A prompt is one user message; SMG is asked in chat completions, which it relays, and
Shepherd in responses, which it translates. Arrivals do not wait for answers. `--kill` kills a worker half way.

Agents (`bench/fleet_agents.py`) do wait: so many sessions at once begin turns for `--seconds`. SMG is sent the whole
conversation each time, `shepherd` what is new and the id of the response before, `shepherd+whole` all of it. A gateway
that answers sooner is asked more, so what is compared are the turns that were done behind every one of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from app.simulator.service import Request
from bench.fleet_agents import Way, crowd
from bench.fleet_client import Outcome, ask, connect
from bench.fleet_processes import started
from bench.fleet_report import HEAD, beside, report
from bench.routing import load
from bench.sessions import RECORDED, hurried, session

_BLOCK_CHARS = 2048


def text_of(request: Request) -> str:
    """The prompt: a block of text for each hash id, as many tokens in all as the trace says."""
    blocks = [(f"{key:x} sheep " * 256)[:_BLOCK_CHARS] for key in request.keys]
    return "".join(blocks)[: request.tokens * 4]


def body_of(request: Request, way: Way) -> tuple[str, bytes]:
    """The path and the body that ask for it."""
    text = text_of(request)
    asked = {"model": "simulated", "stream": True, "ignore_eos": True}
    if way == "chat":
        messages = [{"role": "user", "content": text}]
        more = {"messages": messages, "max_tokens": request.output, "stream_options": {"include_usage": True}}
        return "/v1/chat/completions", json.dumps({**asked, **more}).encode()
    more = {"input": text, "max_output_tokens": max(request.output, 16), "store": False}
    return "/v1/responses", json.dumps({**asked, **more}).encode()


async def replay(url: str, requests: Sequence[Request], way: Way) -> list[Outcome]:
    """Send all requests when they are due; their outcomes in the same order."""
    async with connect() as client:
        began, tasks = time.perf_counter(), list[asyncio.Task[Outcome]]()
        for request in requests:
            await asyncio.sleep(max(began + request.arrived - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(ask(client, url, *body_of(request, way))))
        return await asyncio.gather(*tasks)


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


async def run(url: str, requests: Sequence[Request], way: Way, victim: subprocess.Popen[bytes] | None) -> list[Outcome]:
    """The replay, and half way the kill if there is a victim."""
    killing = None
    if victim is not None:
        killing = asyncio.create_task(kill_later(victim, requests[-1].arrived / 2))
    outcomes = await replay(url, requests, way)
    if killing is not None:
        await killing
    return outcomes


def read(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--trace", type=Path)
    source.add_argument("--agents", type=int, metavar="LIVE", help="so many sessions alive at once")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=120.0, help="how long requests arrive")
    parser.add_argument("--warm", type=float, default=0.0, help="leave out the turns of agents' first so many seconds")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--cache-tokens", type=int, default=1_228_800)
    parser.add_argument("--smg", help="path of the smg program")
    parser.add_argument("--gateways", nargs="+", help="each with :POLICY if not cache_aware")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--logs", type=Path, help="folder for the gateways' logs")
    parser.add_argument("--raw", type=Path, help="file to append every outcome to, as JSON lines")
    options = parser.parse_args(arguments)
    if options.agents and options.kill:
        parser.error("--kill is for traces")
    if options.gateways is None:
        options.gateways = ["smg", "shepherd", "shepherd+whole"] if options.agents else ["smg", "shepherd"]
    if options.logs:
        options.logs.mkdir(parents=True, exist_ok=True)
    return options


def main(arguments: Sequence[str]) -> None:
    """Run the bench."""
    options = read(arguments)
    if options.agents:
        agents(options)
    else:
        trace(options)


def told(name: str, outcomes: Sequence[Outcome], raw: Path | None) -> None:
    """Say why requests failed, and write down what became of all."""
    causes = {how: sum(each.how == how for each in outcomes) for how in {each.how for each in outcomes}}
    if set(causes) != {"done"}:
        print(f"  {name}: {causes}", file=sys.stderr, flush=True)
    if raw is not None:
        with raw.open("a") as file:
            for each in outcomes:
                file.write(json.dumps([name, each.first, each.ended, each.how, each.chunks]) + os.linesep)


def trace(options: argparse.Namespace) -> None:
    """A trace through all gateways."""
    requests = [each for each in load(options.trace, options.speed, None) if each.arrived < options.seconds]
    print(f"{options.trace.name} x{options.speed:g}: {len(requests)} requests in {options.seconds:g} s", flush=True)
    print(HEAD)
    for name in options.gateways:
        with started(name, options) as there:
            outcomes = asyncio.run(run(there.url, requests, there.way, there.victim if options.kill else None))
        print(report(name, outcomes, there.cpu), flush=True)
        told(name, outcomes, options.raw)
        if options.kill:
            count = under_way(requests, outcomes)
            print(f"  {name}: {count} were under way at the kill", file=sys.stderr, flush=True)


def agents(options: argparse.Namespace) -> None:
    """Sessions through all gateways, and beside each other the turns that were done behind every one of them."""
    habits = hurried(RECORDED, options.speed)
    span = f"{options.warm:g} to {options.seconds:g} s"
    print(f"{options.agents} agents x{options.speed:g}: all turns begun from {span}", flush=True)
    print(HEAD)
    found: dict[str, dict[tuple[int, int], Outcome]] = {}
    for name in options.gateways:
        with started(name, options) as there:
            lives = crowd(there.url, lambda number: session(number, habits), options.agents, there.way, options.seconds)
            took = [each for each in asyncio.run(lives) if each.asked >= options.warm]
        outcomes = [each.outcome for each in took]
        print(report(name, outcomes, there.cpu), flush=True)
        told(name, outcomes, options.raw)
        found[name] = {(each.session, each.place): each.outcome for each in took if each.outcome.how == "done"}
    print("\n" + "\n".join(beside(found)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
