"""A principal's tools, of all servers, by the names MCP clients know them by."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from app.mcp.behind import Permits
from app.mcp.books import Books
from app.mcp.executor import McpExecutor
from app.mcp.run import RunTools
from app.mcp.sessions import Owner
from app.mcp.settings import McpSettings
from app.responses.naming import offered
from app.turn.items import ToolSpec
from app.turn.request import NEVER_ASK, McpServer

_log = logging.getLogger(__name__)
_MOST_KEPT = 1_000
_KEPT_SECS = 5.0


class Catalogue(Struct, frozen=True):
    """The tools, as they were a moment ago, and the way to call them."""

    run: RunTools
    tools: Mapping[str, ToolSpec]
    until: float


class Catalogues:
    """The catalogues of all principals, each kept for a moment. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        executor: McpExecutor,
        books: Books,
        settings: McpSettings,
        permits: Permits,
        clock: Callable[[], float],
    ) -> None:
        self._executor = executor
        self._permits = permits
        self._books = books
        self._settings = settings
        self._clock = clock
        self._kept: OrderedDict[Owner, Catalogue] = OrderedDict()

    async def of(self, owner: Owner) -> Catalogue:
        """What `owner` may call, also where each call takes a word. A server that does not answer is left out."""
        kept = self._kept.get(owner)
        if kept is not None and self._clock() < kept.until:
            return kept
        labels = [server.label for server in self._settings.servers]
        labels += [server.label for server in await self._books.servers(owner.tenant) if server.enabled]
        servers = [McpServer(label=label, require_approval=NEVER_ASK) for label in labels]
        run = await self._executor.tools(owner, servers, None, self._permits)
        listings: dict[str, Sequence[ToolSpec]] = {}
        for listed in await asyncio.gather(*(run.list_tools(label) for label in labels)):
            if listed.error is not None:
                _log.warning("MCP server left out: %s", listed.error.message)
            listings[listed.server_label] = listed.tools
        tools = {spec.name: spec for spec in offered((), listings)}
        made = self._kept[owner] = Catalogue(run, tools, self._clock() + _KEPT_SECS)
        self._kept.move_to_end(owner)
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return made
