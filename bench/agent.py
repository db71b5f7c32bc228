"""What a streamed, stored agent response costs: CPU and wall time a model turn, beside SMG when its binary is given.

`python bench/agent.py [--smg PATH] [--database-url URL] [--responses N] [--delay-ms D]`

Both gateways get the same scripted model and the same MCP server (bench/agent_peers.py), one request at a time and then
eight at a time. Wall overhead is what is left of a response after the model's and the tools' own delays. CPU is that of
the gateway's whole process tree, from /proc. SMG keeps its history in memory; ours is on the database named.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TypeAlias

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.processes import SHEPHERD, free_port, process

TICK = os.sysconf("SC_CLK_TCK")
PEERS = "bench.agent_peers"

Rows: TypeAlias = dict[tuple[int, int], tuple[float, ...]]


def cpu_seconds(pid: int) -> float:
    """CPU of `pid` and all its descendants, to the nanosecond the scheduler keeps."""
    total = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0]) / 1e9
        for child in (task / "children").read_text().split():
            total += cpu_seconds(int(child))
    return total


async def respond(session: aiohttp.ClientSession, url: str, tools_url: str, calls: int) -> tuple[float, int]:
    """One streamed response; its wall seconds and how many items it had. Raises when it is not what it should be."""
    tool = {"type": "mcp", "server_label": "bench", "server_url": tools_url, "require_approval": "never"}
    body = {"model": "bench", "input": f"please calls={calls}", "stream": True, "store": True, "tools": [tool]}
    start = time.perf_counter()
    async with session.post(f"{url}/v1/responses", json=body) as answer:
        text = (await answer.read()).decode()
    wall = time.perf_counter() - start
    done = text.count('"type":"response.output_item.done"')
    if answer.status != 200 or "event: response.completed" not in text or done < calls + 1:
        raise RuntimeError(f"{answer.status}: {done} items for {calls} calls: {text[-600:]}")
    return wall, done


async def measure(url: str, tools_url: str, pid: int, args: argparse.Namespace) -> Rows:
    """(calls, concurrency) → CPU ms a turn, wall overhead p50 and p90 in ms a turn."""
    rows: Rows = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for calls in (1, 3, 10):
            for concurrency in (1, 8):
                for _ in range(5):
                    await respond(session, url, tools_url, calls)
                rounds = max(1, args.responses // concurrency)
                before, walls = cpu_seconds(pid), []
                for _ in range(rounds):
                    done = await asyncio.gather(*(respond(session, url, tools_url, calls) for _ in range(concurrency)))
                    walls += [wall for wall, _ in done]
                spent = cpu_seconds(pid) - before
                turns = calls + 1
                own = (turns + calls) * args.delay_ms / 1000
                over = sorted((wall - own) * 1000 / turns for wall in walls)
                cpu = spent * 1000 / (len(walls) * turns)
                rows[calls, concurrency] = (cpu, statistics.median(over), over[int(len(over) * 0.9)])
    return rows


def main() -> None:
    """Run, and print a table with ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--smg", type=Path, help="the smg binary")
    parser.add_argument("--database-url")
    parser.add_argument("--responses", type=int, default=80)
    parser.add_argument("--delay-ms", type=float, default=5.0)
    args = parser.parse_args()
    ports = [free_port() for _ in range(5)]
    model, tools = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}/mcp"
    results = {}
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        url = f"http://127.0.0.1:{ports[2]}"
        database = args.database_url or f"sqlite:///{home}/history.db"
        ours = [SHEPHERD, "serve", "--worker-urls", model, "--port", str(ports[2]), "--database-url", database]
        with (
            process(
                [sys.executable, "-m", PEERS, "model", str(ports[0]), str(args.delay_ms)], ready=f"{model}/v1/models"
            ),
            process([sys.executable, "-m", PEERS, "tools", str(ports[1]), str(args.delay_ms)]),
        ):
            with process(ours, ready=f"{url}/readiness", cwd=home, log=home / "ours.log") as running:
                results["shepherd"] = asyncio.run(measure(url, tools, running.pid, args))
            if args.smg:
                with process(_smg(args.smg, model, ports[3], ports[4]), log=home / "smg.log") as running:
                    smg = f"http://127.0.0.1:{ports[3]}"
                    results["smg"] = asyncio.run(_when_ready(smg, tools, running.pid, args))
    print("who      calls  at once  CPU ms/turn  overhead p50  p90 ms/turn")
    for who, rows in results.items():
        for (calls, concurrency), (cpu, p50, p90) in rows.items():
            print(f"{who:8} {calls:5}  {concurrency:7}  {cpu:11.2f}  {p50:12.2f}  {p90:11.2f}")
    if "smg" in results:
        for key, (cpu, p50, _) in results["shepherd"].items():
            other = results["smg"][key]
            ratios = f"CPU {cpu / other[0]:.2f}, overhead p50 {p50 / other[1]:.2f}"
            print(f"ratio ours/smg at {key[0]} calls, {key[1]} at once: {ratios}")


def _smg(binary: Path, model: str, port: int, metrics: int) -> list[str]:
    command = [str(binary), "launch", "--backend", "openai", "--history-backend", "memory", "--host", "127.0.0.1"]
    ports = ["--port", str(port), "--prometheus-port", str(metrics)]
    return [*command, *ports, "--worker-urls", model, "--log-level", "error"]


async def _when_ready(url: str, tools: str, pid: int, args: argparse.Namespace) -> Rows:
    """Measure, once a response is made at all: SMG says it is ready before it knows its workers."""
    end = time.monotonic() + 30
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                await respond(session, url, tools, 1)
                break
            except (aiohttp.ClientError, RuntimeError):
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.3)
    return await measure(url, tools, pid, args)


if __name__ == "__main__":
    main()
