"""Prompts in SQLite or PostgreSQL: a row for each, which numbers its versions, and a sealed row for each version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import BindParameter, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.history.desk_tables import prompt_versions, prompts
from app.history.errors import available, storable
from app.history.paging import page_of
from app.history.seal import Sealer
from app.responses.stores import Order, Page, PromptVersion
from app.turn.errors import NotFound

_TENANT: Final[BindParameter[str]] = bindparam("of")
_ID: Final[BindParameter[str]] = bindparam("prompt")
_PROMPT: Final = (prompts.c.tenant == _TENANT, prompts.c.id == _ID)

_GET: Final = select(prompts).where(*_PROMPT)
_ADD: Final = insert(prompts)
_ADD_VERSION: Final = insert(prompt_versions)
_DELETE: Final = delete(prompts).where(*_PROMPT).returning(prompts.c.id)
_NEXT: Final = (
    update(prompts)
    .where(*_PROMPT)
    .values(version=prompts.c.version + 1)
    .returning(prompts.c.version, prompts.c.created_at)
)
_VERSION: Final = select(prompt_versions).where(
    prompt_versions.c.tenant == _TENANT,
    prompt_versions.c.prompt_id == _ID,
    prompt_versions.c.version == bindparam("numbered"),
)
_NEWEST: Final = select(prompt_versions).where(
    prompt_versions.c.tenant == _TENANT,
    prompt_versions.c.prompt_id.in_(bindparam("ids", expanding=True)),
    prompt_versions.c.version
    == select(prompts.c.version)
    .where(prompts.c.tenant == prompt_versions.c.tenant, prompts.c.id == prompt_versions.c.prompt_id)
    .scalar_subquery(),
)


class SqlPromptStore:
    """`PromptStore` on a database whose schema is current."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def create(self, tenant: str, prompt_id: str, body: bytes, now: int) -> PromptVersion:
        """See `PromptStore`."""
        await self._sealer.ready(tenant)
        with available():
            async with self._database.writing() as connection:
                row = {"tenant": tenant, "id": prompt_id, "version": 1, "created_at": now}
                await connection.execute(_ADD, row)
                await self._write(connection, tenant, prompt_id, 1, body, now)
        return PromptVersion(
            id=prompt_id, version=1, latest=1, created_at=now, version_created_at=now, body=msgspec.Raw(body)
        )

    async def get(self, tenant: str, prompt_id: str, version: int | None = None) -> PromptVersion:
        """See `PromptStore`."""
        key = _key(tenant, prompt_id)
        await self._sealer.ready(tenant)
        with available():
            async with self._database.reading() as connection:
                found = (await connection.execute(_GET, key)).one_or_none()
                if found is None:
                    raise no_prompt(prompt_id)
                wanted = found.version if version is None else version
                row = None
                if 0 < wanted <= found.version:
                    row = (await connection.execute(_VERSION, {**key, "numbered": wanted})).one_or_none()
        if row is None:
            message = f"Prompt '{prompt_id}' has no version '{wanted}'."
            raise NotFound(message, code="prompt_version_not_found")
        return self._opened(tenant, found, row)

    async def listed(self, tenant: str, *, limit: int, order: Order, after: str | None) -> Page[PromptVersion]:
        """See `PromptStore`."""
        await self._sealer.ready(tenant)
        with available():
            async with self._database.reading() as connection:
                asked = page_of(prompts, limit=limit, order=order, after=after)
                found = await asked.fetch(connection, tenant)
                ids = [row.id for row in found[:limit]]
                rows: Sequence[Any] = (
                    (await connection.execute(_NEWEST, {"of": tenant, "ids": ids})).all() if ids else ()
                )
        newest = {row.prompt_id: row for row in rows}
        return Page(
            tuple(self._opened(tenant, row, newest[row.id]) for row in found[:limit] if row.id in newest),
            len(found) > limit,
        )

    async def add_version(self, tenant: str, prompt_id: str, body: bytes, now: int) -> PromptVersion:
        """See `PromptStore`."""
        key = _key(tenant, prompt_id)
        await self._sealer.ready(tenant)
        with available():
            async with self._database.writing() as connection:
                # The row is held until the commit, so that no number is given twice.
                found = (await connection.execute(_NEXT, key)).one_or_none()
                if found is None:
                    raise no_prompt(prompt_id)
                await self._write(connection, tenant, prompt_id, found.version, body, now)
        return PromptVersion(
            id=prompt_id,
            version=found.version,
            latest=found.version,
            created_at=found.created_at,
            version_created_at=now,
            body=msgspec.Raw(body),
        )

    async def delete(self, tenant: str, prompt_id: str) -> None:
        """See `PromptStore`."""
        with available():
            async with self._database.writing() as connection:
                if (await connection.execute(_DELETE, _key(tenant, prompt_id))).first() is None:
                    raise no_prompt(prompt_id)

    async def _write(
        self, connection: AsyncConnection, tenant: str, prompt_id: str, version: int, body: bytes, now: int
    ) -> None:
        row = {
            "tenant": tenant,
            "prompt_id": prompt_id,
            "version": version,
            "created_at": now,
            "body": self._sealer.seal(tenant, prompt_place(prompt_id, version), body),
        }
        await connection.execute(_ADD_VERSION, row)

    def _opened(self, tenant: str, prompt: Any, row: Any) -> PromptVersion:
        plain = self._sealer.open(tenant, prompt_place(prompt.id, row.version), row.body)
        return PromptVersion(
            id=prompt.id,
            version=row.version,
            latest=prompt.version,
            created_at=prompt.created_at,
            version_created_at=row.created_at,
            body=msgspec.Raw(plain),
        )


def no_prompt(prompt_id: str) -> NotFound:
    """There is no such prompt, for this tenant."""
    return NotFound(f"Prompt with id '{prompt_id}' not found.", code="prompt_not_found")


def _key(tenant: str, prompt_id: str) -> dict[str, str]:
    if not storable(prompt_id):
        raise no_prompt(prompt_id)
    return {"of": tenant, "prompt": prompt_id}


def prompt_place(prompt_id: str, version: int) -> str:
    """The place a version of a prompt is sealed for."""
    return f"prompts/{prompt_id}/{version}"
