"""What this room logs: labels, tool names, outcomes, durations. Never arguments, results, tokens or session ids."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)

# The SDK logs session ids at INFO and whole messages at DEBUG, and what it sends events by does, too; its tracebacks
# quote what servers sent.
_SDK_LOGGERS = (
    "mcp",
    "sse_starlette",
    "client",
    "mcp.client.client",
    "mcp.client.stdio",
    "mcp.client.streamable_http",
    "mcp.shared.jsonrpc_dispatcher",
    "httpx2",
    "httpcore2",
)


class _WithoutDetail(logging.Filter):
    """Drops tracebacks, whose exceptions quote what a server sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, without its exception."""
        record.exc_info = record.exc_text = None
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _WithoutDetail)

    def __hash__(self) -> int:
        return hash(_WithoutDetail)


def quiet_sdk() -> None:
    """Keep the MCP SDK's loggers at WARNING, whatever the log level is, and free of tracebacks. Can be repeated."""
    for name in _SDK_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.addFilter(_WithoutDetail())


def opened(label: str, protocol: str, seconds: float) -> None:
    """A session was opened."""
    _log.info("MCP session opened", extra={"server": label, "protocol": protocol, "seconds": round(seconds, 4)})


def unopened(label: str, reason: str) -> None:
    """A session could not be opened; `reason` is a text of ours."""
    _log.warning("MCP session not opened", extra={"server": label, "reason": reason})


def closed(label: str, fault: str | None) -> None:
    """A session ended, as planned or with the exception type `fault`."""
    _log.info("MCP session closed", extra={"server": label, "fault": fault})


def called(label: str, tool: str, outcome: str, seconds: float) -> None:
    """A tool call ended."""
    extra = {"server": label, "tool": tool, "outcome": outcome, "seconds": round(seconds, 4)}
    _log.info("MCP tool called", extra=extra)
