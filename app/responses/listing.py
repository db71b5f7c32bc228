"""The servers of a response while they are asked for their tools: who has answered, and what of it is shown."""

from __future__ import annotations

from collections.abc import Sequence

from app.turn.errors import Failure, LocalProtocolError
from app.turn.events import Emit, ListTools, OutEvent, Start, ToolsListed
from app.turn.items import ToolSpec


class Listings:
    """Which tools each server has, in the order of the servers, whichever answers first."""

    def __init__(self, start: Start | None = None) -> None:
        servers = () if start is None else start.servers
        known = {listing.server_label: listing.tools for listing in (() if start is None else start.known)}
        self.tools: dict[str, Sequence[ToolSpec]] = {label: known.get(label, ()) for label in servers}
        self.unlisted = {label for label in servers if label not in known}
        self._roles = {role.server_label: role.kind for role in (() if start is None else start.roles)}

    def ask(self) -> list[OutEvent]:
        """Ask those who have not answered. A server that plays a hosted tool is asked behind the scenes."""
        asked = self.ask_again()
        return [out for ask in asked for out in ((ask,) if ask.server_label in self._roles else (Emit(ask), ask))]

    def ask_again(self) -> list[ListTools]:
        """Ask those who have not answered, of whom the client knows."""
        return [ListTools(label) for label in self.tools if label in self.unlisted]

    def take(self, event: ToolsListed) -> list[OutEvent]:
        """A server has answered; what is shown of it. Raises `LocalProtocolError` when nobody asked."""
        if event.server_label not in self.unlisted:
            raise LocalProtocolError(f"unasked listing of {event.server_label!r}")
        self.unlisted.discard(event.server_label)
        self.tools[event.server_label] = event.tools
        return [] if event.server_label in self._roles else [Emit(event)]

    def missing(self, event: ToolsListed) -> Failure | None:
        """Why the response cannot go on: the server is the only one that could do what the request wants."""
        role = self._roles.get(event.server_label)
        if role is None or event.tools:
            return None
        why = f": {event.error.message}" if event.error is not None else "."
        return Failure(502, "tool_unavailable", f"'{role}' is not available{why}")
