"""From a request to what a run begins with, and what to remember of it so that it can begin again.

Everything that follows from the request follows from it again: ids are minted from a seed, so that a run that is made
anew from its log says the same things under the same names.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from app.dialects.openai_responses import decode
from app.dialects.openai_responses.keeping import keep, kept
from app.dialects.openai_responses.wire import CreateResponse
from app.responses.ports import NO_HINTS, McpServer, RouteHints, RouteKey, StoredItem
from app.turn.events import Start
from app.turn.ids import IdSource
from app.turn.items import Item, ToolListing

SEED_BYTES = 16


class Plan(Struct, frozen=True):
    """Everything a run needs, decided before it begins. `context` comes before `own`, the request's own input."""

    request: CreateResponse
    context: tuple[StoredItem, ...]
    own: tuple[StoredItem, ...]
    servers: tuple[McpServer, ...]
    start: Start
    route: RouteKey


class Recipe(Struct, frozen=True):
    """What has to be kept of a run that may have to begin again."""

    seed: bytes
    profile: str
    request: msgspec.Raw

    def write(self) -> bytes:
        """As bytes."""
        return msgspec.json.encode(self)

    def read_request(self) -> CreateResponse:
        """The request."""
        return kept(self.request)


_recipe = msgspec.json.Decoder(Recipe)


def remember(seed: bytes, profile: str, request: CreateResponse) -> Recipe:
    """The recipe of a run. Only a run that somebody else may have to make needs the request's secrets."""
    return Recipe(seed, profile, msgspec.Raw(keep(request, secrets=request.background is True)))


def recall(data: bytes) -> Recipe:
    """The recipe in `data`."""
    return _recipe.decode(data)


def plan(
    tenant: str,
    request: CreateResponse,
    context: tuple[StoredItem, ...],
    ids: IdSource,
    max_tool_calls: int,
    hints: RouteHints = NO_HINTS,
) -> Plan:
    """The plan for `request`. Raises `InvalidRequest` for whatever is wrong with it in this context."""
    own = decode.input_items(request, ids)
    before, new = decode.to_items(context), decode.to_items(own)
    decode.check_pairing(before, new)
    servers = decode.servers(request)
    start = Start(
        request=decode.turn_request(request, (*before, *new), decode.function_tools(request)),
        servers=tuple(server.label for server in servers),
        known=tuple(listing for server in servers if (listing := known((*before, *new), server)) is not None),
        max_tool_calls=min(request.max_tool_calls or max_tool_calls, max_tool_calls),
    )
    route = RouteKey(
        tenant=tenant,
        model=request.model,
        conversation=request.previous_response_id,
        affinity=hints.affinity or request.prompt_cache_key,
        target=hints.target,
    )
    return Plan(request, context, own, servers, start, route)


def known(context: Sequence[Item], server: McpServer) -> ToolListing | None:
    """The listing of `server` that the context already holds, if it answers what this request asks for.

    A listing shows what was allowed when it was made; asked for a tool it does not show, the server is listed again.
    """
    for item in reversed(context):
        if isinstance(item, ToolListing) and item.server_label == server.label and item.error is None:
            if server.allowed is None:
                return item
            tools = tuple(tool for tool in item.tools if (tool.tool or tool.name) in server.allowed)
            return msgspec.structs.replace(item, tools=tools) if len(tools) == len(set(server.allowed)) else None
    return None
