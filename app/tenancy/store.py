"""Tenants and keys in the database."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from msgspec import Struct
from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from app.db.engine import Database
from app.tenancy.keys import Key, digest, new_secret
from app.tenancy.principal import Scope
from app.tenancy.tables import api_keys, tenants
from app.turn.errors import Conflict, NotFound, Unavailable
from app.turn.ids import IdSource


class Tenant(Struct, frozen=True):
    """Somebody whose things are kept apart. Times are in seconds since the epoch."""

    id: str
    created_at: int
    revoked_at: int | None = None


class TenantStore:
    """Tenants and their keys. Raises `Unavailable` when the database does not answer."""

    def __init__(self, database: Database, ids: IdSource) -> None:
        self._database = database
        self._ids = ids

    async def create_tenant(self, name: str, now: float) -> Tenant:
        """A new tenant. Raises `Conflict` when the name is taken."""
        tenant = Tenant(name, int(now))
        try:
            async with answering(), self._database.writing() as connection:
                await connection.execute(insert(tenants).values(id=name, created_at=tenant.created_at))
        except IntegrityError as error:
            raise Conflict(f"There is already a tenant '{name}'.") from error
        return tenant

    async def tenants(self) -> Sequence[Tenant]:
        """All tenants, by name."""
        async with answering(), self._database.reading() as connection:
            rows = await connection.execute(select(tenants).order_by(tenants.c.id))
            return [Tenant(row.id, row.created_at, row.revoked_at) for row in rows]

    async def revoke_tenant(self, name: str, now: float) -> None:
        """Lock the tenant out, with all its keys. What it stored stays. Raises `NotFound`."""
        async with answering(), self._database.writing() as connection:
            found = await connection.execute(
                update(tenants).where(tenants.c.id == name, tenants.c.revoked_at.is_(None)).values(revoked_at=int(now))
            )
        if found.rowcount == 0:
            raise NotFound(f"There is no tenant '{name}'.")

    async def create_key(
        self, tenant: str, name: str, scopes: Sequence[Scope], now: float, *, expires_at: int | None = None
    ) -> tuple[Key, str]:
        """A new key, and the key itself, which nobody can be told again. Raises `NotFound` for the tenant."""
        secret = new_secret()
        key = Key(
            id=self._ids.new("key"),
            tenant=tenant,
            name=name,
            scopes=tuple(scopes),
            created_at=int(now),
            expires_at=expires_at,
        )
        row = {
            "id": key.id,
            "tenant": tenant,
            "name": name,
            "scopes": ",".join(scopes),
            "digest": digest(secret),
            "created_at": key.created_at,
            "expires_at": expires_at,
        }
        async with answering(), self._database.writing() as connection:
            found = await connection.execute(
                select(tenants.c.id).where(tenants.c.id == tenant, tenants.c.revoked_at.is_(None))
            )
            if found.first() is None:
                raise NotFound(f"There is no tenant '{tenant}'.")
            await connection.execute(insert(api_keys).values(**row))
        return key, secret

    async def keys(self, tenant: str | None = None) -> Sequence[Key]:
        """The keys of one tenant, or all, oldest first."""
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if tenant is not None:
            query = query.where(api_keys.c.tenant == tenant)
        async with answering(), self._database.reading() as connection:
            return [_key(row) for row in await connection.execute(query)]

    async def revoke_key(self, key_id: str, now: float) -> None:
        """Make the key worthless. Raises `NotFound`."""
        valid = (api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        async with answering(), self._database.writing() as connection:
            found = await connection.execute(update(api_keys).where(*valid).values(revoked_at=int(now)))
        if found.rowcount == 0:
            raise NotFound(f"There is no key '{key_id}', or it is revoked.")

    async def by_digest(self, key_digest: bytes) -> Key | None:
        """The key with this digest, valid or not; None for a revoked tenant's."""
        query = (
            select(api_keys)
            .join(tenants, tenants.c.id == api_keys.c.tenant)
            .where(api_keys.c.digest == key_digest, tenants.c.revoked_at.is_(None))
        )
        async with answering():
            row = await self._database.look(lambda connection: connection.execute(query).first())
        return None if row is None else _key(row)

    async def has_keys(self) -> bool:
        """Whether there ever was a key."""
        query = select(api_keys.c.id).limit(1)
        async with answering():
            return await self._database.look(lambda connection: connection.execute(query).first()) is not None


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        scopes=tuple(cast("list[Scope]", row.scopes.split(","))),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


@asynccontextmanager
async def answering() -> AsyncGenerator[None]:
    """What a database that does not answer raises, as `Unavailable`; broken constraints pass."""
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        raise Unavailable("The database does not answer. Please retry.", retry_after=5) from error
