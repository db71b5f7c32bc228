"""What runs share: where they ask, what they know, and who hears of their calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from msgspec import Struct

from app.mcp.audit import Called, Tell, tell_nobody
from app.mcp.books import Books
from app.mcp.client import Link
from app.mcp.held import Holding
from app.mcp.servers import Target
from app.mcp.sessions import Owner
from app.mcp.settings import McpSettings
from app.mcp.vault import NoVault, Vault
from app.responses.ledger import Ledger
from app.turn.events import Approved, CallTool
from app.turn.items import Terms

_T = TypeVar("_T")


class Behind(Struct, frozen=True, kw_only=True):
    """What is asked: what is known of servers, what is sent to them, and who wants to hear of calls.

    `wall` is the time in seconds since the epoch.
    """

    books: Books
    vault: Vault = NoVault()
    tell: Tell = tell_nobody
    wall: Callable[[], float] = lambda: 0.0

    def telling(self, ledger: Ledger | None) -> Callable[[Called], Awaitable[None]]:
        """What tells of the calls of the run whose ledger this is."""

        async def tell(called: Called) -> None:
            await self.tell(called, ledger)

        return tell


class Asked(Struct, frozen=True):
    """Whose question it is, to whom, and in which thread of responses."""

    owner: Owner
    target: Target
    thread: str | None


class Ask(Protocol):
    """Asks a server, over a session. Raises `McpFailure`."""

    async def __call__(self, asked: Asked, question: Callable[[Link], Awaitable[_T]], *, again: bool) -> _T: ...


class Permits(Protocol):
    """Gives permission for calls that nobody was asked about."""

    async def permit(self, owner: Owner, call: CallTool, terms: Terms) -> Approved:
        """The permission for exactly this call, which is used up. Raises `McpFailure` where there is none."""
        ...


class Backing(Struct, frozen=True):
    """What a run stands on, all but `tell` shared with others: `tell` writes down its calls, `observe` is told of each,
    its outcome and its seconds; `holding` has the calls that wait at their servers for users' answers."""

    settings: McpSettings
    behind: Behind
    ask: Ask
    observe: Callable[[CallTool, str, float], None]
    tell: Callable[[Called], Awaitable[None]]
    holding: Holding
