"""The keys of requests that may be repeated, in SQLite or PostgreSQL. Of a request only a keyed digest is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    Connection,
    Executable,
    Insert,
    Row,
    and_,
    bindparam,
    delete,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from app.db.engine import Database
from app.history.desk_tables import request_keys
from app.history.errors import available
from app.history.seal import Sealer
from app.responses.stores import HeldKey

_TENANT: Final[BindParameter[str]] = bindparam("of")
_KEY: Final[BindParameter[str]] = bindparam("wanted")
_HERE: Final = and_(request_keys.c.tenant == _TENANT, request_keys.c.key == _KEY)
_MINE: Final = and_(_HERE, request_keys.c.response_id == bindparam("response"))

_FREE: Final = delete(request_keys).where(
    _HERE,
    or_(
        request_keys.c.expires_at <= bindparam("now"),
        and_(not_(request_keys.c.begun), request_keys.c.created_at < bindparam("stale_before")),
    ),
)
_GET: Final = select(request_keys).where(_HERE)
_BEGUN: Final = update(request_keys).where(_MINE).values(begun=True)
_RELEASE: Final = delete(request_keys).where(_MINE, not_(request_keys.c.begun))
_SWEEP: Final = delete(request_keys).where(request_keys.c.expires_at <= bindparam("now"))


class SqlRequestKeys:
    """`RequestKeys` on a database whose schema is current."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer
        self._hold = _hold(is_sqlite=database.is_sqlite)

    async def hold(self, tenant: str, wanted: HeldKey, *, expires_at: int, stale_before: int) -> HeldKey:
        """See `RequestKeys`."""
        await self._sealer.ready(tenant)
        # A digest alone would tell whoever guesses a request that it was made.
        digest = self._sealer.name(tenant, wanted.digest.hex()).encode()
        row = {
            "tenant": tenant,
            "key": wanted.key,
            "digest": digest,
            "response_id": wanted.response_id,
            "begun": False,
            "created_at": wanted.created_at,
            "expires_at": expires_at,
        }
        key = {"of": tenant, "wanted": wanted.key}

        def write(connection: Connection) -> Row[Any]:
            connection.execute(_FREE, {**key, "now": wanted.created_at, "stale_before": stale_before})
            connection.execute(self._hold, row)
            return connection.execute(_GET, key).one()

        with available():
            found = await self._database.transact(write)
        return HeldKey(
            key=found.key,
            digest=wanted.digest if found.digest == digest else found.digest,
            response_id=found.response_id,
            begun=found.begun,
            created_at=found.created_at,
        )

    async def begun(self, tenant: str, key: str, response_id: str) -> None:
        """See `RequestKeys`."""
        await self._change(_BEGUN, {"of": tenant, "wanted": key, "response": response_id})

    async def release(self, tenant: str, key: str, response_id: str) -> None:
        """See `RequestKeys`."""
        await self._change(_RELEASE, {"of": tenant, "wanted": key, "response": response_id})

    async def sweep(self, now: int) -> None:
        """See `RequestKeys`."""
        await self._change(_SWEEP, {"now": now})

    async def _change(self, statement: Executable, values: Mapping[str, object]) -> None:
        with available():
            await self._database.transact(lambda connection: connection.execute(statement, values).rowcount)


def _hold(*, is_sqlite: bool) -> Insert:
    if is_sqlite:
        return sqlite.insert(request_keys).on_conflict_do_nothing()
    return postgresql.insert(request_keys).on_conflict_do_nothing()
