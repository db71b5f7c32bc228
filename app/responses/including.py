"""What is read, with what its reader wants to have with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from msgspec import Raw

from app.dialects.openai_responses.encode import body_from
from app.dialects.openai_responses.included import ADDED, with_included
from app.dialects.openai_responses.sealed import Sealed, pack
from app.responses.stores import StoredItem, TokenSealer

_fields = msgspec.json.Decoder(dict[str, Raw])
_items = msgspec.json.Decoder(list[Raw])


class Including:
    """Adds to items what `include` names. Raises `Unavailable` where something is to be sealed."""

    def __init__(self, sealer: TokenSealer) -> None:
        self._sealer = sealer

    async def items(self, tenant: str, found: Sequence[StoredItem], include: Collection[str]) -> tuple[StoredItem, ...]:
        """The items with that."""
        if ADDED.isdisjoint(include):
            return tuple(found)
        await self._sealer.ready(tenant)

        def seal(content: Sealed) -> str:
            return self._sealer.seal(tenant, pack(content))

        return tuple(with_included(item, include, seal) for item in found)

    async def response(self, tenant: str, body: bytes, include: Collection[str]) -> bytes:
        """The response as JSON, its output with that."""
        if ADDED.isdisjoint(include):
            return body
        fields = _fields.decode(body)
        output = [StoredItem("", raw) for raw in _items.decode(fields.pop("output"))]
        return body_from(msgspec.json.encode(fields), await self.items(tenant, output, include))
