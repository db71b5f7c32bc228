"""Permission for calls that nobody can be asked about while they are made: asked for first, and given by somebody else.

A client of `/mcp` has no next request in which to answer, and a call it makes stands for no response. So the first call
is refused, and waits for the word of another person; the same call, once it has that, goes through, and uses it up. It
is the same call when its user, server, tool, arguments, definition and rules are.
"""

from __future__ import annotations

from typing import Protocol

from app.mcp.approvals import Waiting
from app.mcp.failure import INVALID_PARAMS, McpFailure, clip
from app.mcp.sessions import Owner
from app.responses.ports import Approval, Clock
from app.turn.errors import GatewayError
from app.turn.events import Approved, CallTool
from app.turn.ids import IdSource
from app.turn.items import Terms, ToolError

# Of one principal. A client that tries every argument there is would otherwise fill what people have to read.
MOST_WAITING = 100


class NotPermitted(McpFailure):
    """The call waits for a person's word, or somebody said no. `waiting` is what it waits as."""

    def __init__(self, message: str, waiting: Waiting) -> None:
        super().__init__(ToolError("mcp_protocol_error", message, INVALID_PARAMS))
        self.waiting = waiting


class Asking(Protocol):
    """Where calls wait."""

    async def ask(self, tenant: str, wanted: Approval, most: int) -> Waiting:
        """What is known of a call like `wanted`; it waits from now on where nothing is, unless `most` do already.

        One that was approved is used up, and nobody else gets it. Raises `Conflict` for too many, `Unavailable`.
        """
        ...


class AskedFor:
    """The `Permits` port, from those who are asked over the admin API. A call waits for them for `seconds` at most."""

    def __init__(self, kept: Asking, ids: IdSource, clock: Clock, seconds: float) -> None:
        self._kept = kept
        self._ids = ids
        self._clock = clock
        self._seconds = seconds

    async def permit(self, owner: Owner, call: CallTool, terms: Terms) -> Approved:
        """See `Permits`."""
        now = self._clock.now()
        wanted = Approval(
            id=self._ids.new("mcpr"),
            principal=owner.principal,
            response_id="",
            server_label=call.server_label,
            tool=call.tool,
            arguments=call.arguments,
            terms=terms,
            created_at=now,
            expires_at=now + self._seconds,
        )
        try:
            found = await self._kept.ask(owner.tenant, wanted, MOST_WAITING)
        except GatewayError as error:
            raise McpFailure(ToolError("mcp_protocol_error", error.message, INVALID_PARAMS)) from None
        if found.used:
            return Approved(found.approval.id, terms)
        named = f"Tool '{clip(call.tool, 128)}' of MCP server '{call.server_label}'"
        if found.word is False:
            raise NotPermitted(f"{named} may not be called so: approval {found.approval.id} was refused.", found)
        raise NotPermitted(
            f"{named} needs approval. The call waits as {found.approval.id} for another person of your tenant to agree "
            "(/admin/v1/approvals). Make the same call again once they have.",
            found,
        )
