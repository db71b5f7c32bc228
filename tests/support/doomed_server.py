"""A gateway that kills itself at a chosen step: `python -m tests.support.doomed_server POINT NUMBER serve FLAGS…`.

It is the real program with its seams wrapped; at the NUMBERth time it comes to POINT, it dies as if the power had gone.
Points are `before-` or `after-` one of `SEAMS`; `A,B` is the first time it comes to B after that. With STAND_STILL set
it stops there instead, as a machine does that is paused. It counts how often it comes to each into the file that
COUNT_TO names.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from app.cli.main import main
from app.history.journal import Journal
from app.history.runs import SqlRunStore
from app.mcp.approval_store import SqlApprovals
from app.mcp.client import Link
from tests.support.recording import RECORD_TO, record

COUNT_TO: Final = "COUNT_TO"
STAND_STILL: Final = "STAND_STILL"
# `commit` is every change of the database, whoever makes it.
SEAMS: Final[dict[str, tuple[type, str]]] = {
    "begin": (SqlRunStore, "begin"),
    "append": (Journal, "_write"),
    "claim": (SqlRunStore, "_open"),
    "call": (Link, "call"),
    "ask": (SqlApprovals, "open"),
    "answer": (SqlApprovals, "consume"),
    "conclude": (SqlRunStore, "_try_to_conclude"),
    "commit": (AsyncConnection, "commit"),
}


class Doom:
    """Sends the process `end` at `point`, the `number`th time; never, when that is 0."""

    def __init__(self, point: str, number: int, counts: Path | None, end: signal.Signals) -> None:
        self._point, _, self._then = point.partition(",")
        self._number = number
        self._end = end
        self._close = False
        self._file = counts
        self._passed: Counter[str] = Counter()

    def come_to(self, point: str) -> None:
        """Die, if this is where."""
        if self._close and point == self._then:
            self._close = False
            os.kill(os.getpid(), self._end)
        self._passed[point] += 1
        if self._file is not None:
            self._file.write_text(json.dumps(self._passed))
        if point == self._point and self._passed[point] == self._number:
            if self._then:
                self._close = True
            else:
                os.kill(os.getpid(), self._end)

    def wrap(self, name: str) -> None:
        """Come to a seam before and after it is used."""
        place, method = SEAMS[name]
        whole: Callable[..., Awaitable[Any]] = getattr(place, method)

        async def wrapped(*given: Any, **named: Any) -> Any:
            self.come_to(f"before-{name}")
            result = await whole(*given, **named)
            self.come_to(f"after-{name}")
            return result

        setattr(place, method, wrapped)


if __name__ == "__main__":
    record(Path(os.environ[RECORD_TO]))
    counted = os.environ.get(COUNT_TO)
    end = signal.SIGSTOP if STAND_STILL in os.environ else signal.SIGKILL
    doom = Doom(sys.argv[1], int(sys.argv[2]), None if counted is None else Path(counted), end)
    for seam in SEAMS:
        doom.wrap(seam)
    sys.exit(main(sys.argv[3:]))
