"""From what a request presents to who it is.

A presented key is looked up by its digest, so that how long a look-up takes says nothing about any key; what was found
is remembered for a moment, in the same way for keys that open nothing. The server is open, which means that everyone is
the default tenant, until there is a key; from then on it never is again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from app.responses.ports import Clock
from app.tenancy.keys import digest
from app.tenancy.principal import ANYONE, Principal
from app.tenancy.settings import ConfiguredKey, TenancySettings
from app.tenancy.shared import Shared
from app.tenancy.store import TenantStore
from app.turn.errors import Unauthenticated

_MOST_REMEMBERED = 10_000


class Gate:
    """Admits principals."""

    def __init__(self, store: TenantStore, settings: TenancySettings, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._for = settings.key_cache_secs
        self._configured = _by_digest(settings.keys)
        self._asking_openness: Shared[None, bool] = Shared()
        self._asking_keys: Shared[bytes, Principal | None] = Shared()
        self._known: OrderedDict[bytes, tuple[float, Principal | None]] = OrderedDict()
        self._closed = bool(settings.keys)
        self._open_until = float("-inf")

    async def admit(self, presented: str | None) -> Principal:
        """Who presents this key. Raises `Unauthenticated`, `Unavailable`."""
        if await self.is_open():
            return ANYONE
        if not presented:
            raise Unauthenticated(
                "You didn't provide an API key. Send it as 'Authorization: Bearer KEY'.", code="missing_api_key"
            )
        found = await self._principal(digest(presented))
        if found is None:
            raise Unauthenticated("Incorrect API key provided.")
        return found

    async def is_open(self) -> bool:
        """Whether nobody needs a key, because there is none."""
        now = self._clock.now()
        if not self._closed and now >= self._open_until:
            self._closed = await self._asking_openness.of(None, self._store.has_keys)
            self._open_until = now + self._for
        return not self._closed

    async def _principal(self, key: bytes) -> Principal | None:
        now = self._clock.now()
        remembered = self._known.get(key)
        if remembered is not None and now < remembered[0]:
            return remembered[1]
        found = self._configured.get(key) or await self._asking_keys.of(key, lambda: self._stored(key, now))
        self._known[key] = (now + self._for, found)
        self._known.move_to_end(key)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return found

    async def _stored(self, key: bytes, now: float) -> Principal | None:
        row = await self._store.by_digest(key)
        if row is None or not row.valid(now):
            return None
        return Principal(row.tenant, row.id, frozenset(row.scopes))


def _by_digest(keys: Sequence[ConfiguredKey]) -> dict[bytes, Principal]:
    found: dict[bytes, Principal] = {}
    for key in keys:
        principal = Principal(key.tenant, f"config:{key.name}", frozenset(key.scopes))
        made = digest(key.key.reveal())
        if made in found:
            raise ValueError(f"the key {key.name!r} of tenant {key.tenant!r} is configured twice")
        found[made] = principal
    return found
