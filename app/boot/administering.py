"""What a tenant's admins use, at start: the registry, the vault, the log, and the use-cases over them."""

from __future__ import annotations

from contextlib import AsyncExitStack

import httpx2
from msgspec import Struct

from app.api.admin.rooms import Admin
from app.boot.auditing import acts_to
from app.boot.waiting import Waiting
from app.db.engine import Database
from app.history.keyring import Keyring
from app.mcp.admin import McpAdmin
from app.mcp.enrolment import Enrolments
from app.mcp.executor import McpExecutor
from app.mcp.keeping import Keeping
from app.mcp.networks import network_for_others
from app.mcp.sealed_vault import SealedVault
from app.mcp.seals import Sealer
from app.mcp.settings import McpSettings
from app.mcp.store import SqlBooks
from app.responses.ports import Clock
from app.tenancy.audit import AuditLog
from app.turn.ids import IdSource


class Kept(Struct, frozen=True):
    """What is stored, and the way out to what tenants name besides servers."""

    books: SqlBooks
    vault: SealedVault
    log: AuditLog
    sealer: Sealer
    network: httpx2.AsyncBaseTransport


class Shared(Struct, frozen=True, kw_only=True):
    """What the MCP room needs. `needs_no_key`: everyone is the default tenant, who may use servers on this machine."""

    database: Database
    keyring: Keyring
    clock: Clock
    ids: IdSource
    needs_no_key: bool

    def over(self, mcp: McpSettings, sealer: Sealer, stack: AsyncExitStack) -> Kept:
        """What is kept in the database; the network is closed by `stack`."""
        network = network_for_others(mcp)
        stack.push_async_callback(network.aclose)
        vault = SealedVault(self.database, sealer, self.clock, network)
        stack.push_async_callback(vault.close)
        return Kept(SqlBooks(self.database), vault, AuditLog(self.database), sealer, network)


def open_admin(mcp: McpSettings, shared: Shared, kept: Kept, executor: McpExecutor, waiting: Waiting) -> Admin:
    """The use-cases of admins, all of them written to the log. `waiting` are the calls that wait for people."""
    acted = acts_to(kept.log, shared.clock)
    admin = McpAdmin(executor, kept.books, mcp, shared.clock, shared.ids, acted)
    enrolments = Enrolments(shared.database, kept.books, kept.vault, kept.network, mcp.public_url or "")
    keeping = Keeping(executor, kept.books, kept.vault, enrolments, kept.sealer, shared.clock, acted)
    return Admin(
        mcp=admin,
        keeping=keeping,
        approvals=waiting.approvals,
        elicitations=waiting.elicitations,
        audit=kept.log,
        now=shared.clock.now,
    )
