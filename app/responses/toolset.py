"""The tools of a response: which there are, which of them the model sees, and whom a name belongs to.

The list the model sees only ever grows at its end. Whatever a search finds, and whatever the client adds in the course
of the conversation, goes behind what was there, in the order of its appearance: in this response and in the next one
that builds on it. Tools that move cost the engine its whole cached prefix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import structs

from app.responses.calls import is_ours
from app.responses.naming import offered
from app.responses.searching import search
from app.turn.events import Start
from app.turn.items import Item, ToolCall, ToolKind, ToolSpec
from app.turn.request import AllowedTools, NamedTool, ToolChoice


class Toolset:
    """Built once all servers have listed their tools."""

    def __init__(self, start: Start, listings: Mapping[str, Sequence[ToolSpec]]) -> None:
        roles: dict[str, ToolKind] = {role.server_label: role.kind for role in start.roles}
        plain = {label: specs for label, specs in listings.items() if label not in roles}
        played = [_played(kind, label, listings.get(label, ())) for label, kind in roles.items()]
        new = [tool for tool in start.added if not tool.deferred]
        client = (*start.request.tools, *_without_doubles(start.request.tools, new))
        every = offered((*client, *(tool for tool in played if tool is not None)), plain, start.deferred)
        last = {tool.name for tool in client[len(start.request.tools) :]}
        hidden = {tool.name for tool in every if _is_deferred(tool, start.deferred)}
        self._every = {tool.name: tool for tool in every}
        self._shown = [tool for tool in every if tool.name not in hidden | last]
        self._about = start.about
        self._by_home = {_home(tool): tool for tool in every}
        for tool in start.added:
            # A tool found in an earlier response may be gone, or be shown from the start now.
            label, namespace, own = _home(tool)
            known = self._by_home.get((label, namespace, own)) or self._by_home.get((namespace, None, own))
            if known is not None:
                self.load((known,))

    @property
    def shown(self) -> tuple[ToolSpec, ...]:
        """What the model sees, in a stable order."""
        return tuple(self._shown)

    def owner(self, name: str) -> ToolSpec | None:
        """The tool the model means by `name`, if there is one."""
        return self._every.get(name)

    def load(self, tools: Sequence[ToolSpec]) -> None:
        """From now on the model sees these, too."""
        seen = {tool.name for tool in self._shown}
        self._shown += [tool for tool in tools if tool.name not in seen]

    def find(self, arguments: str) -> tuple[ToolSpec, ...]:
        """What a search with these arguments finds among the tools that the model does not see yet."""
        seen = {tool.name for tool in self._shown}
        return search(arguments, [tool for tool in self._every.values() if tool.name not in seen], self._about)

    def named(self, server_label: str, tool: str) -> str:
        """What the model calls a server's tool; its own name when it is not offered."""
        known = self._by_home.get((server_label, None, tool))
        return tool if known is None else known.name

    def rename(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """The context with the servers' calls under the names that the model knows their tools by now."""
        return tuple(
            structs.replace(item, name=self.named(item.server_label, item.tool or item.name))
            if isinstance(item, ToolCall) and item.server_label is not None
            else item
            for item in items
        )

    def choice(self, asked: ToolChoice, allowed: AllowedTools | None, *, turn: int, broke: bool) -> ToolChoice:
        """What the engine is told about calling tools in turn number `turn` (from 1).

        `asked` holds for the first turn, unless it is "none". `broke`: the gateway may make no more calls. Where a call
        of one of several is required and only one may be called, the engine is told which.
        """
        if broke and self._shown and all(is_ours(tool) for tool in self._shown):
            return "none"
        if asked == "none" or turn > 1:
            return "none" if asked == "none" else "auto"
        if asked != "required" or allowed is None:
            return asked
        candidates = [tool for tool in self._shown if allowed.allows(tool)]
        return NamedTool(candidates[0].name) if len(candidates) == 1 else asked


def _played(kind: ToolKind, label: str, listed: Sequence[ToolSpec]) -> ToolSpec | None:
    """The tool of a server that plays `kind`: the one called so, or its first."""
    chosen = next((tool for tool in listed if (tool.tool or tool.name) == kind), listed[0] if listed else None)
    if chosen is None:
        return None
    return structs.replace(chosen, name=kind, kind=kind, server_label=label, tool=chosen.tool or chosen.name)


def _without_doubles(given: Sequence[ToolSpec], added: Sequence[ToolSpec]) -> list[ToolSpec]:
    """`added` without what is there already. Of two with one name the first stays: the model was shown that."""
    names = {tool.name for tool in given}
    kept: list[ToolSpec] = []
    for tool in added:
        if tool.name not in names:
            names.add(tool.name)
            kept.append(tool)
    return kept


def _is_deferred(tool: ToolSpec, labels: Sequence[str]) -> bool:
    return tool.deferred or (tool.server_label is not None and tool.server_label in labels)


def _home(tool: ToolSpec) -> tuple[str | None, str | None, str]:
    """What a tool is called where it lives."""
    return tool.server_label, tool.namespace, tool.tool or tool.name
