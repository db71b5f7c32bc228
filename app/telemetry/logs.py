"""Log lines, for people or as JSON, each with the id of the request it belongs to.

Bodies, headers and secrets are not logged by anyone: what is not passed to a logger cannot leak from here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

# Tasks inherit it, so the lines of a run carry the id of the request that started the run.
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller passed as `extra=`."""
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


def _when(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, request_id, then the extras."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line: dict[str, Any] = {
            "time": _when(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (rid := request_id.get()) is not None:
            line["request_id"] = rid
        line |= extras(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=repr).decode()


class PlainFormatter(logging.Formatter):
    """One line for a person, with a traceback below it where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        said: Mapping[str, Any] = extras(record)
        if (rid := request_id.get()) is not None:
            said = {**said, "request_id": rid}
        tail = "".join([f" {key}={value}" for key, value in said.items()])
        clock = _when(record).isoformat(timespec="milliseconds")[11:23]
        line = f"{clock} {record.levelname:<7} {record.name}: {record.getMessage()}{tail}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: str, *, as_json: bool, stream: TextIO | None = None) -> None:
    """Send the process's logs to `stream` (stderr by default) from `level` upwards."""
    # Nobody's line says where in the code, in which thread or in which process it was written; finding that out is most
    # of what a line costs.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue] # noqa: SLF001 - as Python's manual says
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else PlainFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These narrate every step of their own; ours say what an operator needs.
    for chatty in ("uvicorn", "httpx", "httpx2", "httpcore", "mcp", "aiosqlite", "alembic", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
