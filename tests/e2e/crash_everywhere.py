"""kill -9 everywhere: `python -m tests.e2e.crash_everywhere [SCENARIO…] [--database sqlite|postgres] [--seam NAME]`.

Each scenario is run once to its end, which counts how often it comes to each seam; then once for each of these, before
and after, and the server is killed there. A line is printed for each crash, and last a summary in JSON; the exit code
is 1 when anything was wrong. A crash takes about five seconds, so all of them take an hour or two; the suite has a
handful (`test_crashes`).

With `--journal FILE` it can be stopped and started again: what the file says was done is not done again, and the
summary is of all of it. Several may share a file, each with its `--part 1/2`, `2/2`. `--minutes` is when to stop by
itself. The crashes come in an order that is always the same and mixes all that there are.
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
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.contract.history.postgres_server import Server, running
from tests.e2e.crash_scenarios import SCENARIOS, SCRIPT, crash
from tests.e2e.crashing import Park, World, park
from tests.support.doomed_server import SEAMS
from tests.support.processes import SHEPHERD

NEVER: Final = "never"
DATABASES: Final = ("sqlite", "postgres")


class Crash(NamedTuple):
    """Where to die: at a point of a scenario on a database, the `number`th time."""

    database: str
    scenario: str
    point: str
    number: int

    @property
    def rank(self) -> int:
        """Its place among all."""
        return zlib.crc32("/".join(map(str, self)).encode())


class Journal:
    """What was counted and what was done, a line of JSON each, in a file that others may add to."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.counts: dict[tuple[str, str], dict[str, int]] = {}
        self.done: dict[Crash, list[str]] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                self._take(json.loads(line))

    def counted(self, database: str, scenario: str, counts: dict[str, int]) -> None:
        """How often the scenario comes to each point."""
        self._add({"counted": [database, scenario], "counts": counts})

    def crashed(self, at: Crash, wrong: list[str], seconds: float) -> None:
        """It was killed there, and so much was wrong."""
        self._add({"crash": at, "wrong": wrong, "seconds": round(seconds, 1)})

    def _add(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry)
        self._take(json.loads(line))
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(f"{line}\n")

    def _take(self, entry: dict[str, Any]) -> None:
        if "crash" in entry:
            self.done[Crash(*entry["crash"])] = entry["wrong"]
        else:
            database, scenario = entry["counted"]
            self.counts[database, scenario] = entry["counts"]


def new_world(beside: Park, home: Path, server: Server | None) -> World:
    """A world with an empty database: SQLite, or one of `server`'s."""
    place = home / f"w{uuid.uuid4().hex}"
    place.mkdir()
    if server is None:
        return beside.world(place)
    return beside.world(place, asyncio.run(server.create(place.name, template=migrated(server))))


@cache
def migrated(server: Server) -> str:
    """A database of the server's that has the tables, to be copied."""
    url = asyncio.run(server.create(name := "migrated"))
    subprocess.run([SHEPHERD, "migrate", "--database-url", url], check=True, capture_output=True)
    return name


def count(there: World, scenario: str) -> dict[str, int]:
    """How often the scenario comes to each point."""
    counts = there.home / "counts"
    wrong = crash(there, SCENARIOS[scenario], NEVER, 0, counts=str(counts))
    if wrong:
        raise SystemExit(f"{scenario} is wrong without a crash: {wrong}")
    return json.loads(counts.read_text())


def points(journal: Journal, asked: argparse.Namespace) -> Iterator[Crash]:
    """Every point that was asked for."""
    for database in asked.database or DATABASES:
        for scenario in asked.scenario:
            for point, passed in journal.counts.get((database, scenario), {}).items():
                if point.partition("-")[2] in (asked.seam or SEAMS):
                    yield from (Crash(database, scenario, point, number) for number in range(1, passed + 1))


def kill(there: World, at: Crash) -> list[str]:
    """What is wrong after it. What keeps it from being found out is wrong, too."""
    try:
        return crash(there, SCENARIOS[at.scenario], at.point, at.number)
    except Exception as error:  # noqa: BLE001 - the others are to be looked at all the same
        return [f"{type(error).__name__}: {error}"]


def parse(words: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenario", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--database", choices=DATABASES, action="append")
    parser.add_argument("--seam", choices=list(SEAMS), action="append")
    parser.add_argument("--journal", type=Path)
    parser.add_argument("--part", default="1/1", metavar="K/N", help="only these of N parts")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing after so long")
    return parser.parse_args(words)


def run(asked: argparse.Namespace, journal: Journal, began: float) -> None:
    """Crash, as long as there is time."""
    part, parts = map(int, asked.part.split("/"))
    with tempfile.TemporaryDirectory() as given, ExitStack() as stack:
        home = Path(given)
        beside = stack.enter_context(park(home, script=SCRIPT))
        kinds = asked.database or DATABASES
        servers = {kind: stack.enter_context(running()) if kind == "postgres" else None for kind in kinds}
        for kind in kinds:
            for scenario in asked.scenario:
                if (kind, scenario) not in journal.counts:
                    journal.counted(kind, scenario, count(new_world(beside, home, servers[kind]), scenario))
        for at in sorted(points(journal, asked), key=lambda each: each.rank):
            if time.monotonic() - began > asked.minutes * 60:
                return
            if at in journal.done or at.rank % parts != part % parts:
                continue
            start = time.monotonic()
            wrong = kill(new_world(beside, home, servers[at.database]), at)
            journal.crashed(at, wrong, time.monotonic() - start)
            sys.stdout.write(f"{' '.join(map(str, at))} {wrong or 'ok'}\n")
            sys.stdout.flush()


def main() -> int:
    """Crash; the exit code."""
    asked, began = parse(sys.argv[1:]), time.monotonic()
    journal = Journal(asked.journal)
    with suppress(KeyboardInterrupt):
        run(asked, journal, began)
    # Others may have added to it.
    journal = journal if asked.journal is None else Journal(asked.journal)
    every = set(points(journal, asked))
    done = {at: found for at, found in journal.done.items() if at in every}
    wrong = [{**at._asdict(), "wrong": found} for at, found in done.items() if found]
    summary = {"points": len(every), "crashes": len(done), "seconds": round(time.monotonic() - began), "wrong": wrong}
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
