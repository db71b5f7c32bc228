"""The books in the database."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from app.db.engine import Database
from app.db.prepared import Prepared
from app.mcp.books import Registered, no_server, no_tool, stale, taken
from app.mcp.definitions import Pin
from app.mcp.rules import Policy, ServerConfig, TenantPolicy
from app.mcp.tables import credentials, definitions, policies, servers
from app.turn.errors import Unavailable

_PIN = [column for column in definitions.columns if column.name not in ("tenant", "place")]

# What every run asks for.
_SERVERS = Prepared(select(servers).where(servers.c.tenant == bindparam("of")).order_by(servers.c.label))
_SERVER = Prepared(select(servers).where(servers.c.tenant == bindparam("of"), servers.c.label == bindparam("named")))
_POLICY = Prepared(select(policies.c.version, policies.c.body).where(policies.c.tenant == bindparam("of")))
_NAMES = servers.c.keys()
_PINS = select(*_PIN).where(definitions.c.tenant == bindparam("of"), definitions.c.place == bindparam("at"))


class SqlBooks:
    """The `Books` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def servers(self, tenant: str) -> Sequence[Registered]:
        """See `Books`."""
        async with answering():
            rows = await self._database.look(lambda connection: _SERVERS.run(connection, {"of": tenant}))
        return [_registered(row) for row in rows]

    async def server(self, tenant: str, label: str) -> Registered:
        """See `Books`."""
        mine = {"of": tenant, "named": label}
        async with answering():
            rows = await self._database.look(lambda connection: _SERVER.run(connection, mine))
        if not rows:
            raise no_server(label)
        return _registered(rows[0])

    async def add(self, server: Registered) -> None:
        """See `Books`."""
        try:
            async with answering(), self._database.writing() as connection:
                await connection.execute(insert(servers).values(**_columns(server)))
        except IntegrityError as error:
            raise taken(server.label) from error

    async def change(self, server: Registered, *, expected: int) -> None:
        """See `Books`."""
        mine = (servers.c.tenant == server.tenant, servers.c.label == server.label)
        async with answering(), self._database.writing() as connection:
            changed = await connection.execute(
                update(servers).where(*mine, servers.c.version == expected).values(**_columns(server))
            )
            if changed.rowcount == 0:
                there = (await connection.execute(select(servers.c.version).where(*mine))).first()
                raise no_server(server.label) if there is None else stale(f"The MCP server '{server.label}'")

    async def remove(self, tenant: str, label: str) -> Registered:
        """See `Books`."""
        mine = (servers.c.tenant == tenant, servers.c.label == label)
        async with answering(), self._database.writing() as connection:
            row = (await connection.execute(select(servers).where(*mine))).first()
            if row is None:
                raise no_server(label)
            await connection.execute(delete(servers).where(*mine))
            for table, column in ((definitions, definitions.c.place), (credentials, credentials.c.server)):
                await connection.execute(delete(table).where(table.c.tenant == tenant, column == row.id))
        return _registered(row)

    async def policy(self, tenant: str) -> Policy:
        """See `Books`."""
        async with answering():
            rows = await self._database.look(lambda connection: _POLICY.run(connection, {"of": tenant}))
        return _policy(rows)

    async def known(self, tenant: str) -> tuple[Policy, Sequence[Registered]]:
        """See `Books`."""
        of = {"of": tenant}
        async with answering():
            policy, rows = await self._database.look(
                lambda connection: (_POLICY.run(connection, of), _SERVERS.run(connection, of))
            )
        return _policy(policy), [_registered(row) for row in rows]

    async def set_policy(self, tenant: str, body: TenantPolicy, *, expected: int, now: int) -> Policy:
        """See `Books`."""
        values = {"version": expected + 1, "body": msgspec.json.encode(body).decode(), "updated_at": now}
        mine = (policies.c.tenant == tenant, policies.c.version == expected)
        try:
            async with answering(), self._database.writing() as connection:
                if expected == 0:
                    await connection.execute(insert(policies).values(tenant=tenant, **values))
                elif (await connection.execute(update(policies).where(*mine).values(**values))).rowcount == 0:
                    raise stale("The policy")
        except IntegrityError as error:
            raise stale("The policy") from error
        return Policy(expected + 1, body)

    async def pins(self, tenant: str, place: str) -> Mapping[str, Pin]:
        """See `Books`."""
        of = {"of": tenant, "at": place}
        async with answering():
            rows = await self._database.look(lambda connection: connection.execute(_PINS, of).mappings().all())
        return {row["tool"]: Pin(**row) for row in rows}

    async def record(self, tenant: str, place: str, pins: Sequence[Pin]) -> None:
        """See `Books`."""
        try:
            await self._record(tenant, place, pins)
        except IntegrityError:
            # Somebody else saw one of them first, at the same moment.
            await self._record(tenant, place, pins)

    async def accept(self, tenant: str, place: str, tool: str, seen_digest: str, now: int) -> Pin:
        """See `Books`."""
        mine = _mine(tenant, place, tool)
        accepted = {"accepted": definitions.c.seen, "accepted_digest": definitions.c.seen_digest, "changed_at": now}
        async with answering(), self._database.writing() as connection:
            await connection.execute(
                update(definitions).where(*mine, definitions.c.seen_digest == seen_digest).values(**accepted)
            )
            row = (await connection.execute(select(*_PIN).where(*mine))).mappings().first()
        if row is None:
            raise no_tool(tool)
        pin = Pin(**row)
        if pin.seen_digest != seen_digest:
            raise stale(f"The definition of '{tool}'")
        return pin

    async def _record(self, tenant: str, place: str, pins: Sequence[Pin]) -> None:
        async with answering(), self._database.writing() as connection:
            for pin in pins:
                mine = _mine(tenant, place, pin.tool)
                seen = {"seen": pin.seen, "seen_digest": pin.seen_digest, "changed_at": pin.changed_at}
                changed = await connection.execute(update(definitions).where(*mine).values(**seen))
                if changed.rowcount == 0:
                    row = {"tenant": tenant, "place": place, **msgspec.structs.asdict(pin)}
                    await connection.execute(insert(definitions).values(**row))


def _mine(tenant: str, place: str, tool: str) -> tuple[Any, ...]:
    return (definitions.c.tenant == tenant, definitions.c.place == place, definitions.c.tool == tool)


def _columns(server: Registered) -> dict[str, Any]:
    return {**msgspec.structs.asdict(server), "config": msgspec.json.encode(server.config).decode()}


def _registered(row: Sequence[Any]) -> Registered:
    columns: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    columns["config"] = msgspec.json.decode(columns["config"], type=ServerConfig)
    columns["enabled"] = bool(columns["enabled"])
    return Registered(**columns)


def _policy(rows: Sequence[Sequence[Any]]) -> Policy:
    return Policy(rows[0][0], msgspec.json.decode(rows[0][1], type=TenantPolicy)) if rows else Policy()


@asynccontextmanager
async def answering() -> AsyncGenerator[None]:
    """What a database that does not answer raises, as `Unavailable`; broken constraints pass."""
    try:
        yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        raise Unavailable("The database does not answer. Please retry.", retry_after=5) from error
