"""Servers that do not answer are left alone for a while, so that nobody waits for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from msgspec import Struct

from app.mcp.failure import CLOSED, McpFailure, broken

_MOST_KEPT = 10_000


class _Record(Struct):
    failures: int = 0
    left_alone_until: float = 0.0


class Breaker:
    """One breaker for each (tenant, place). `clock` is monotonic, in seconds.

    After `most` failures in a row a server is left alone for `secs`; then one request tries it, and its outcome
    decides about the others.
    """

    def __init__(self, most: int, secs: float, clock: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._secs = secs
        self._clock = clock
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()

    def check(self, tenant: str, place: str, label: str) -> None:
        """Raise `McpFailure` for a server that is left alone."""
        record = self._records.get((tenant, place))
        if record is None or record.failures < self._most:
            return
        now = self._clock()
        if now < record.left_alone_until:
            raise broken(f"MCP server '{label}' has not been answering; it is left alone for a moment.", CLOSED)
        # This one tries; the others wait for it.
        record.left_alone_until = now + self._secs

    def note(self, tenant: str, place: str, failure: McpFailure | None) -> None:
        """A request ended. Only failures of the server to answer at all count; any answer forgives."""
        key = (tenant, place)
        if failure is None or not failure.silent:
            self._records.pop(key, None)
            return
        record = self._records.setdefault(key, _Record())
        record.failures += 1
        record.left_alone_until = self._clock() + self._secs
        self._records.move_to_end(key)
        if len(self._records) > _MOST_KEPT:
            self._records.popitem(last=False)
