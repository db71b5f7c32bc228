"""What changes in the course of a conversation: tools that appear, and settings that hold from there on.

Both stand in items, not in the request, so that what came before them keeps its bytes and the engine its cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct, structs

from app.dialects.openai_responses.kinds import kind_of
from app.dialects.openai_responses.tools import Tools, read_tools
from app.dialects.openai_responses.wire import (
    ConfigurationItem,
    Effort,
    TextConfig,
    TextFormat,
    ToolsItem,
    Verbosity,
)
from app.turn.items import StoredItem, ToolSpec

_SETTLING = frozenset(("configuration_update", "additional_tools", "tool_search_output"))

_tools = msgspec.json.Decoder(ToolsItem)
_configuration = msgspec.json.Decoder(ConfigurationItem)


class Configuration(Struct, frozen=True):
    """The settings a conversation has given itself."""

    effort: Effort | None = None
    format: TextFormat | None = None
    verbosity: Verbosity | None = None


def settling(context: Sequence[StoredItem]) -> tuple[StoredItem, ...]:
    """Those of the context's items that are about tools and settings: all that is looked at here."""
    return tuple(item for item in context if kind_of(item) in _SETTLING)


def configuration(context: Sequence[StoredItem]) -> Configuration:
    """The settings that hold at the end of the context: of each the last."""
    held = Configuration()
    for item in context:
        if kind_of(item) == "configuration_update":
            given = _configuration.decode(item.raw)
            effort = given.reasoning.effort if given.reasoning else None
            text = given.text or TextConfig()
            held = Configuration(effort or held.effort, text.format or held.format, text.verbosity or held.verbosity)
    return held


def later_tools(context: Sequence[StoredItem]) -> tuple[Tools, tuple[ToolSpec, ...]]:
    """The tools that the context's items bring, and of those that the model sees from there on each in its order.

    A tool with `deferred` among the latter was found by a search that the gateway made: it counts where the request
    still has it.
    """
    every, seen = Tools(), list[ToolSpec]()
    for item in context:
        kind = kind_of(item)
        if kind not in {"additional_tools", "tool_search_output"}:
            continue
        body = _tools.decode(item.raw)
        found = read_tools(body.tools, f"{kind}.tools")
        if kind == "additional_tools":
            every = every.and_then(found)
            seen += [spec for spec in found.specs if not spec.deferred]
        else:
            seen += [structs.replace(spec, deferred=body.execution != "client") for spec in found.specs]
    return every, tuple(seen)
