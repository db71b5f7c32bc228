"""kill -9 everywhere: `python -m tests.e2e.crash_everywhere [SCENARIO…] [--database sqlite|postgres] [--seam NAME]`.

Each scenario is run once to its end, which counts how often it comes to each seam; then once for each of these, before
and after, and the server is killed there. A line is printed for each crash, and last a summary in JSON; the exit code
is 1 when anything was wrong. A crash takes about five seconds, so all of them take an hour or two; the suite has a
handful (`test_crashes`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.contract.history.postgres_server import Server, running
from tests.e2e.crash_scenarios import SCENARIOS, SCRIPT, crash
from tests.e2e.crashing import Park, World, park
from tests.support.doomed_server import SEAMS
from tests.support.processes import SHEPHERD

NEVER = "never"


def new_world(beside: Park, home: Path, server: Server | None) -> World:
    """A world with an empty database: SQLite, or one of `server`'s."""
    place = home / f"w{uuid.uuid4().hex}"
    place.mkdir()
    if server is None:
        return beside.world(place)
    url = asyncio.run(server.create(place.name))
    subprocess.run([SHEPHERD, "migrate", "--database-url", url], check=True, capture_output=True)
    return beside.world(place, url)


def points(beside: Park, home: Path, server: Server | None, name: str, seams: list[str]) -> Iterator[tuple[str, int]]:
    """Every point the scenario comes to, and the how-manieth time."""
    there = new_world(beside, home, server)
    counts = there.home / "counts"
    wrong = crash(there, SCENARIOS[name], NEVER, 0, counts=str(counts))
    if wrong:
        raise SystemExit(f"{name} is wrong without a crash: {wrong}")
    for point, passed in json.loads(counts.read_text()).items():
        if point.partition("-")[2] in seams:
            yield from ((point, number) for number in range(1, passed + 1))


def main() -> int:
    """Crash; the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--database", choices=["sqlite", "postgres"], action="append")
    parser.add_argument("--seam", choices=list(SEAMS), action="append")
    asked = parser.parse_args()
    crashes, wrong, began = 0, list[dict[str, object]](), time.monotonic()
    with tempfile.TemporaryDirectory() as given, ExitStack() as stack:
        home = Path(given)
        beside = stack.enter_context(park(home, script=SCRIPT))
        for kind in asked.database or ["sqlite", "postgres"]:
            server = stack.enter_context(running()) if kind == "postgres" else None
            for name in asked.scenario:
                for point, number in points(beside, home, server, name, asked.seam or list(SEAMS)):
                    found = crash(new_world(beside, home, server), SCENARIOS[name], point, number)
                    sys.stdout.write(f"{kind} {name} {point} {number} {found or 'ok'}\n")
                    sys.stdout.flush()
                    crashes += 1
                    if found:
                        wrong.append({"database": kind, "scenario": name, "at": [point, number], "wrong": found})
    summary = {"crashes": crashes, "seconds": round(time.monotonic() - began), "wrong": wrong}
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
