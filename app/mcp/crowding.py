"""How many requests one tenant may have under way at one server: what is beyond that waits in line, and nobody else."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class Lines:
    """A line for each (tenant, place), for as long as anybody stands in it. At most `most` are served at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: WeakValueDictionary[tuple[str, str], asyncio.Semaphore] = WeakValueDictionary()

    def line(self, tenant: str, place: str) -> asyncio.Semaphore:
        """To be entered around a request."""
        found = self._lines.get((tenant, place))
        if found is None:
            found = self._lines[tenant, place] = asyncio.Semaphore(self._most)
        return found
