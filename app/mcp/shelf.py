"""Where credentials are kept: rows of the database, sealed, and changed only by who has seen what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs
from sqlalchemy import delete, insert, select, update

from app.db.engine import Database
from app.mcp.seals import Sealer
from app.mcp.secrets import SECRET, Secret, kind
from app.mcp.store import answering
from app.mcp.tables import credentials


class Shelved(Struct, frozen=True):
    """A credential as it is kept. `principal` is empty for one the whole tenant shares; `version` is a new one each
    time somebody puts a credential there, and stays when what was granted is renewed."""

    tenant: str
    server: str
    principal: str
    version: str
    sealed: bytes


class Kept(Struct, frozen=True):
    """That there is a credential. `principal` is empty for one the whole tenant shares."""

    principal: str
    kind: str
    created_at: int


class Shelf:
    """The rows. Methods raise `Unavailable`."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def get(self, tenant: str, server: str, principal: str) -> Shelved | None:
        """What is there now."""
        await self._sealer.ready(tenant)
        query = select(credentials).where(*_mine(tenant, server, principal))
        async with answering(), self._database.reading() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else Shelved(tenant, server, principal, row.version, row.sealed)

    async def kept(self, tenant: str, server: str) -> Sequence[Kept]:
        """Which credentials there are for a server."""
        mine = (credentials.c.tenant == tenant, credentials.c.server == server)
        query = select(credentials).where(*mine).order_by(credentials.c.principal)
        async with answering(), self._database.reading() as connection:
            return [Kept(row.principal, row.kind, row.created_at) for row in await connection.execute(query)]

    async def put(self, new: Shelved, secret: Secret, created_at: int) -> None:
        """Keep `new` with `secret` in place of whatever is there. Its `sealed` is not looked at."""
        await self._sealer.ready(new.tenant)
        row: dict[str, Any] = {**structs.asdict(new), "sealed": self._seal(new, secret)}
        async with answering(), self._database.writing() as connection:
            await connection.execute(delete(credentials).where(*_mine(new.tenant, new.server, new.principal)))
            await connection.execute(insert(credentials).values(**row, kind=kind(secret), created_at=created_at))

    async def swap(self, old: Shelved, secret: Secret) -> Shelved | None:
        """Keep `secret` in place of exactly what was `old`; None where that is not there any more.

        Sealing the same thing twice gives different bytes, so that equal bytes mean that nobody was here since.
        """
        await self._sealer.ready(old.tenant)
        new = structs.replace(old, sealed=self._seal(old, secret))
        mine = _mine(old.tenant, old.server, old.principal)
        unchanged = (credentials.c.version == old.version, credentials.c.sealed == old.sealed)
        async with answering(), self._database.writing() as connection:
            done = await connection.execute(update(credentials).where(*mine, *unchanged).values(sealed=new.sealed))
        return new if done.rowcount == 1 else None

    async def remove(self, tenant: str, server: str, principal: str) -> bool:
        """Forget what is there; whether there was something."""
        async with answering(), self._database.writing() as connection:
            gone = await connection.execute(delete(credentials).where(*_mine(tenant, server, principal)))
        return gone.rowcount > 0

    def open(self, kept: Shelved) -> Secret:
        """What is in it."""
        return SECRET.decode(self._sealer.open(kept.tenant, _place(kept), kept.sealed))

    def _seal(self, kept: Shelved, secret: Secret) -> bytes:
        return self._sealer.seal(kept.tenant, _place(kept), msgspec.json.encode(secret))


def _place(kept: Shelved) -> str:
    return f"credentials/{kept.server}/{kept.principal}"


def _mine(tenant: str, server: str, principal: str) -> tuple[Any, ...]:
    table = credentials.c
    return (table.tenant == tenant, table.server == server, table.principal == principal)
