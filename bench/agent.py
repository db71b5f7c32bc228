"""What a streamed, stored agent response costs: CPU and wall time a model turn, beside SMG when its binary is given.

`python -m bench.agent [--smg PATH] [--postgres | --database-url URL] [--rounds N] [--delay-ms D]`

All gateways get the same scripted model and the same MCP server (bench/agent_peers.py). They run side by side and take
turns, a few responses each, so that what the machine does meanwhile meets all of them; what is printed are medians over
the rounds. Wall overhead is what is left of a response after the model's and the tools' own delays, the peers' own work
included. CPU is that of the gateway's whole process tree, from /proc; PostgreSQL's own is not in it. SMG keeps its
history in memory; ours is on the database named.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import aiohttp

from tests.contract.history.postgres_server import running
from tests.support.ports import free_port
from tests.support.processes import SHEPHERD, bare_process


def cpu_seconds(pid: int) -> float:
    """CPU of `pid` and all its descendants, to the nanosecond the scheduler keeps."""
    total = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0]) / 1e9
        for child in (task / "children").read_text().split():
            total += cpu_seconds(int(child))
    return total


class Case(NamedTuple):
    """`calls` tool calls in all, `each` in one model turn, `at_once` responses at a time."""

    calls: int
    each: int
    at_once: int

    @property
    def turns(self) -> int:
        """Model turns of a response."""
        return self.calls // self.each + 1


class Contender(NamedTuple):
    """A running gateway."""

    name: str
    url: str
    pid: int


class Sample(NamedTuple):
    """Milliseconds a turn."""

    cpu: float
    overhead: float


CASES = tuple(Case(calls, each, n) for calls, each in ((1, 1), (3, 1), (10, 1), (2, 2), (8, 4)) for n in (1, 8))


async def respond(session: aiohttp.ClientSession, url: str, tools_url: str, case: Case) -> float:
    """One streamed response; its wall seconds. Raises when it is not what it should be."""
    tool = {"type": "mcp", "server_label": "bench", "server_url": tools_url, "require_approval": "never"}
    text = f"please calls={case.calls} each={case.each}"
    body = {"model": "bench", "input": text, "stream": True, "store": True, "tools": [tool]}
    start = time.perf_counter()
    async with session.post(f"{url}/v1/responses", json=body) as answer:
        said = (await answer.read()).decode()
    wall = time.perf_counter() - start
    made = said.count("event: response.mcp_call.completed")
    if answer.status != 200 or "event: response.completed" not in said or made != case.calls:
        raise RuntimeError(f"{answer.status}: {made} of {case.calls} calls: {said[-600:]}")
    return wall


async def sample(
    session: aiohttp.ClientSession, who: Contender, tools: str, case: Case, args: argparse.Namespace
) -> Sample:
    """A few responses of one gateway."""
    batches = max(1, args.responses // case.at_once)
    before, walls = cpu_seconds(who.pid), list[float]()
    for _ in range(batches):
        walls += await asyncio.gather(*(respond(session, who.url, tools, case) for _ in range(case.at_once)))
    spent = cpu_seconds(who.pid) - before
    own = (2 * case.turns - 1) * args.delay_ms / 1000
    return Sample(spent * 1000 / (len(walls) * case.turns), (statistics.median(walls) - own) * 1000 / case.turns)


async def measure(contenders: Sequence[Contender], tools: str, args: argparse.Namespace) -> None:
    """All cases, and a line for each and every gateway."""
    print(f"{'calls':>5} {'a turn':>6} {'at once':>7}  {'gateway':20} CPU ms/turn  overhead ms/turn (p50)")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for who in contenders:
            await _ready(session, who, tools)
        for case in CASES:
            rows: dict[str, list[Sample]] = {who.name: [] for who in contenders}
            for round_ in range(args.rounds + 1):
                for who in contenders:
                    took = await sample(session, who, tools, case, args)
                    if round_:  # the first one is to warm up
                        rows[who.name].append(took)
            last = {name: Sample(*map(statistics.median, zip(*took, strict=True))) for name, took in rows.items()}
            for name, took in last.items():
                beside = ""
                if "smg" in last and name != "smg":
                    beside = f"  /smg {took.cpu / last['smg'].cpu:.2f}  {took.overhead / last['smg'].overhead:.2f}"
                head = f"{case.calls:5} {case.each:6} {case.at_once:7}  {name:20}"
                print(f"{head} {took.cpu:11.2f}  {took.overhead:12.2f}{beside}", flush=True)


async def _ready(session: aiohttp.ClientSession, who: Contender, tools: str) -> None:
    """Return once a response is made at all: SMG says it is ready before it knows its workers."""
    end = time.monotonic() + 30
    while True:
        try:
            await respond(session, who.url, tools, CASES[0])
        except (aiohttp.ClientError, RuntimeError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.3)
        else:
            return


def main() -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smg", type=Path, help="the smg binary")
    parser.add_argument("--database-url", help="a second database of ours, empty or migrated, beside the SQLite file")
    parser.add_argument("--postgres", action="store_true", help="the same, on a PostgreSQL started for this")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--responses", type=int, default=16, help="of one gateway in a round")
    parser.add_argument("--delay-ms", type=float, default=5.0)
    args = parser.parse_args()
    if args.smg is not None and not args.smg.exists():
        parser.error(f"there is no {args.smg}")
    if args.smg is None:
        print("SMG is not measured: no --smg PATH was given (pip install smg, in an environment of its own)")
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        databases = {"shepherd sqlite": f"sqlite:///{home}/history.db"}
        if args.postgres:
            databases["shepherd postgres"] = asyncio.run(stack.enter_context(running()).create("bench"))
        elif args.database_url:
            databases["shepherd " + args.database_url.partition(":")[0]] = args.database_url
        run(stack, home, databases, args)


def run(stack: ExitStack, home: Path, databases: Mapping[str, str], args: argparse.Namespace) -> None:
    """Start everything, and measure."""
    ports = [free_port() for _ in range(4)]
    model, tools = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}/mcp"
    peers = [sys.executable, "-m", "bench.agent_peers"]
    stack.enter_context(bare_process([*peers, "model", str(ports[0]), str(args.delay_ms)], ready=f"{model}/v1/models"))
    stack.enter_context(bare_process([*peers, "tools", str(ports[1]), str(args.delay_ms)]))
    contenders: list[Contender] = []
    for name, database in databases.items():
        url = f"http://127.0.0.1:{(port := free_port())}"
        subprocess.run([SHEPHERD, "migrate", "--database-url", database], cwd=home, check=True, capture_output=True)
        ours = [SHEPHERD, "serve", "--worker-urls", model, "--port", str(port), "--database-url", database]
        made = stack.enter_context(bare_process(ours, ready=f"{url}/readiness", cwd=home, log=home / "ours.log"))
        contenders.append(Contender(name, url, made.pid))
    if args.smg:
        made = stack.enter_context(bare_process(_smg(args.smg, model, ports[2], ports[3]), log=home / "smg.log"))
        contenders.append(Contender("smg", f"http://127.0.0.1:{ports[2]}", made.pid))
    asyncio.run(measure(contenders, tools, args))


def _smg(binary: Path, model: str, port: int, metrics: int) -> list[str]:
    command = [str(binary), "launch", "--backend", "openai", "--history-backend", "memory", "--host", "127.0.0.1"]
    ports = ["--port", str(port), "--prometheus-port", str(metrics)]
    return [*command, *ports, "--worker-urls", model, "--log-level", "error"]


if __name__ == "__main__":
    main()
