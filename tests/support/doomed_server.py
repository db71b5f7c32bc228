"""A gateway that kills itself at a chosen step: `python -m tests.support.doomed_server POINT NUMBER serve FLAGS…`.

It is the real program with its seams wrapped; at the NUMBERth time it comes to POINT, it dies as if the power had gone.
Points are `before-` or `after-` one of `begin`, `append`, `claim`, `call` and `conclude`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from app.cli.main import main
from app.history.journal import Journal
from app.history.runs import SqlRunStore
from app.mcp.client import Link
from tests.support.recording import RECORD_TO, record

SEAMS: dict[str, tuple[type, str]] = {
    "begin": (SqlRunStore, "begin"),
    "append": (Journal, "_write"),
    "claim": (SqlRunStore, "_open"),
    "call": (Link, "call"),
    "conclude": (SqlRunStore, "_try_to_conclude"),
}


def doom(point: str, number: int) -> None:
    """Wrap the seam of `point`."""
    moment, _, name = point.partition("-")
    place, method = SEAMS[name]
    whole: Callable[..., Awaitable[Any]] = getattr(place, method)
    count = 0

    def die_if(now: str) -> None:
        nonlocal count
        if now == moment:
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    async def wrapped(*given: Any, **named: Any) -> Any:
        die_if("before")
        result = await whole(*given, **named)
        die_if("after")
        return result

    setattr(place, method, wrapped)


if __name__ == "__main__":
    record(Path(os.environ[RECORD_TO]))
    doom(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
