"""Prompts in a dict: the twin of `prompts`, held to the same contract."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from app.history.paging import slice_of
from app.history.prompts import no_prompt
from app.responses.stores import Order, Page, PromptVersion
from app.turn.errors import NotFound


class _Kept(Struct, frozen=True):
    id: str
    created_at: int
    versions: tuple[tuple[int, bytes], ...]


class MemoryPromptStore:
    """`PromptStore` that keeps everything in this process."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], _Kept] = {}

    async def create(self, tenant: str, prompt_id: str, body: bytes, now: int) -> PromptVersion:
        """See `PromptStore`."""
        self._kept[tenant, prompt_id] = _Kept(prompt_id, now, ((now, body),))
        return await self.get(tenant, prompt_id)

    async def get(self, tenant: str, prompt_id: str, version: int | None = None) -> PromptVersion:
        """See `PromptStore`."""
        kept = self._find(tenant, prompt_id)
        wanted = len(kept.versions) if version is None else version
        if not 0 < wanted <= len(kept.versions):
            raise NotFound(f"Prompt '{prompt_id}' has no version '{wanted}'.", code="prompt_version_not_found")
        return _version(kept, wanted)

    async def listed(self, tenant: str, *, limit: int, order: Order, after: str | None) -> Page[PromptVersion]:
        """See `PromptStore`."""
        mine = [kept for (owner, _), kept in self._kept.items() if owner == tenant]
        found, more = slice_of(mine, limit=limit, order=order, after=after)
        return Page(tuple(_version(kept, len(kept.versions)) for kept in found), more)

    async def add_version(self, tenant: str, prompt_id: str, body: bytes, now: int) -> PromptVersion:
        """See `PromptStore`."""
        kept = self._find(tenant, prompt_id)
        self._kept[tenant, prompt_id] = _Kept(prompt_id, kept.created_at, (*kept.versions, (now, body)))
        return await self.get(tenant, prompt_id)

    async def delete(self, tenant: str, prompt_id: str) -> None:
        """See `PromptStore`."""
        self._find(tenant, prompt_id)
        del self._kept[tenant, prompt_id]

    def _find(self, tenant: str, prompt_id: str) -> _Kept:
        kept = self._kept.get((tenant, prompt_id))
        if kept is None:
            raise no_prompt(prompt_id)
        return kept


def _version(kept: _Kept, number: int) -> PromptVersion:
    at, body = kept.versions[number - 1]
    return PromptVersion(
        id=kept.id,
        version=number,
        latest=len(kept.versions),
        created_at=kept.created_at,
        version_created_at=at,
        body=msgspec.Raw(body),
    )
