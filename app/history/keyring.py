"""Seals content with a key of its tenant, and keeps those keys sealed with the operator's master key.

What is sealed can be read by whoever has the database *and* the master key, and only at the place it was sealed for.
Deleting a tenant's keys shreds everything of the tenant at once, in every copy and backup of the database too.

    sealed = 0x01 | version of the tenant's key (4 bytes) | nonce (12 bytes) | AES-256-GCM(content, aad=tenant + place)

New content is sealed with the tenant's newest key; older ones stay, to open what they sealed. Master keys are replaced
by sealing the tenants' keys anew (`rotate`); content stays as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct
from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.db.engine import Database
from app.history.errors import available
from app.history.tables import tenant_keys
from app.turn.errors import Unavailable

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
HEAD: Final = b"\x01"
_PREFIX: Final = 5
# A process forgets a tenant's keys after this time, so that shredding reaches every process.
FRESH_SECS: Final = 60.0
_MOST_TENANTS: Final = 10_000

_TENANT: Final = tenant_keys.c.tenant == bindparam("of")
_KEYS: Final = select(tenant_keys).where(_TENANT).order_by(tenant_keys.c.version)
_ALL: Final = select(tenant_keys)
_NEWEST: Final = select(func.max(tenant_keys.c.version)).where(_TENANT)
_ADD: Final = insert(tenant_keys)
_SHRED: Final = delete(tenant_keys).where(_TENANT)
_REWRAP: Final = (
    update(tenant_keys)
    .where(_TENANT, tenant_keys.c.version == bindparam("at"))
    .values(master=bindparam("by"), wrapped=bindparam("anew"))
)


class WrongKey(Exception):
    """A tenant's key is sealed with a master key that is not here."""


class Master(Struct, frozen=True):
    """A master key. `name` tells it from others, and nothing about it."""

    key: bytes

    @property
    def name(self) -> str:
        """The beginning of a hash of the key."""
        return hashlib.blake2b(self.key, digest_size=8, person=b"shepherd-master").hexdigest()

    def __repr__(self) -> str:
        return f"Master({self.name})"


class _Keys(Struct, frozen=True):
    """A tenant's keys at hand. The newest is `newest`; `names` is what people are named with."""

    newest: int
    ciphers: Mapping[int, AESGCM]
    names: bytes
    bound: bytes
    read_at: float


class Keyring:
    """`Sealer` with the tenants' keys in a database. The first of `masters` is the one in use.

    `monotonic` is in seconds. One that is not `sealing` any more still opens what was sealed. What is not sealed is
    taken for content only by one that `accepts_unsealed`, or does not seal itself: anybody who can write to the
    database could have put it there.
    """

    def __init__(
        self,
        database: Database,
        masters: Sequence[Master],
        monotonic: Callable[[], float],
        *,
        sealing: bool = True,
        accepts_unsealed: bool = False,
    ) -> None:
        self._database = database
        self._masters = {master.name: master for master in masters}
        self._current = masters[0]
        self._monotonic = monotonic
        self._tenants: dict[str, _Keys] = {}
        self._reading = asyncio.Lock()
        self._sealing = sealing
        self._accepts_unsealed = accepts_unsealed or not sealing

    async def ready(self, tenant: str) -> None:
        """Have the tenant's keys at hand; a new tenant gets its first. Raises `Unavailable`."""
        if self._is_fresh(tenant):
            return
        async with self._reading:
            if not self._is_fresh(tenant):
                self._note(tenant, await self._read(tenant) or await self._first(tenant))

    def seal(self, tenant: str, place: str, plain: bytes) -> bytes:
        """`plain`, sealed for `place`."""
        if not self._sealing:
            return plain
        keys = self._at_hand(tenant)
        nonce = os.urandom(_NONCE_BYTES)
        head = HEAD + keys.newest.to_bytes(4, "big")
        return head + nonce + keys.ciphers[keys.newest].encrypt(nonce, plain, keys.bound + place.encode())

    def open(self, tenant: str, place: str, sealed: bytes) -> bytes:
        """What was sealed for `place`. Raises `Unavailable` for what was not, or not with a key that is left."""
        if sealed[:1] != HEAD:
            if self._accepts_unsealed:
                return sealed
            raise Unavailable(
                "What was stored is not sealed. Run `shepherd seal upgrade` if it is older than sealing.",
                code="history_unsealed",
            )
        keys = self._at_hand(tenant)
        cipher = keys.ciphers.get(int.from_bytes(sealed[1:_PREFIX], "big"))
        nonce, content = sealed[_PREFIX : _PREFIX + _NONCE_BYTES], sealed[_PREFIX + _NONCE_BYTES :]
        try:
            if cipher is not None:
                return cipher.decrypt(nonce, content, keys.bound + place.encode())
        except InvalidTag:
            pass
        raise Unavailable("What was stored cannot be opened with the keys there are.", code="history_sealed")

    def name(self, tenant: str, person: str) -> str:
        """A keyed hash of `person`."""
        return hmac.new(self._at_hand(tenant).names, person.encode(), hashlib.sha256).hexdigest()

    # ── keys ──────────────────────────────────────────────────────────────────

    async def check(self) -> None:
        """Raise `WrongKey` unless every tenant's keys can be opened."""
        with available():
            async with self._database.reading() as connection:
                rows = (await connection.execute(_ALL)).all()
        for row in rows:
            self._unwrap(row)

    async def renew(self, tenant: str) -> int:
        """Give the tenant a new key for what is stored from now on; its version. Raises `Unavailable`."""
        with available():
            async with self._database.writing() as connection:
                version = (await connection.scalar(_NEWEST, {"of": tenant}) or 0) + 1
                await connection.execute(_ADD, self._wrapped(tenant, version, AESGCM.generate_key(256)))
        self._note(tenant, await self._read(tenant))
        return version

    async def rotate(self) -> int:
        """Seal all tenants' keys with the master key in use; how many were not. Raises `WrongKey`, `Unavailable`."""
        with available():
            async with self._database.writing() as connection:
                rows = [row for row in await connection.execute(_ALL) if row.master != self._current.name]
                for row in rows:
                    anew = self._wrapped(row.tenant, row.version, self._unwrap(row))
                    place = {"of": row.tenant, "at": row.version}
                    await connection.execute(_REWRAP, {**place, "by": anew["master"], "anew": anew["wrapped"]})
        return len(rows)

    async def shred(self, tenant: str) -> None:
        """Forget the tenant's keys, and with them all that was sealed. Raises `Unavailable`."""
        with available():
            async with self._database.writing() as connection:
                await connection.execute(_SHRED, {"of": tenant})
        self._tenants.pop(tenant, None)

    def _at_hand(self, tenant: str) -> _Keys:
        keys = self._tenants.get(tenant)
        if keys is None:
            raise Unavailable("The tenant's keys are gone.", code="history_sealed")
        return keys

    def _is_fresh(self, tenant: str) -> bool:
        keys = self._tenants.get(tenant)
        return keys is not None and self._monotonic() - keys.read_at < FRESH_SECS

    def _note(self, tenant: str, keys: Mapping[int, bytes]) -> None:
        if len(self._tenants) >= _MOST_TENANTS:
            self._tenants.pop(next(iter(self._tenants)))
        names = hashlib.blake2b(keys[min(keys)], digest_size=32, person=b"shepherd-names").digest()
        ciphers = {version: AESGCM(key) for version, key in keys.items()}
        self._tenants[tenant] = _Keys(max(keys), ciphers, names, _bound(tenant, ""), self._monotonic())

    async def _read(self, tenant: str) -> dict[int, bytes]:
        with available():
            async with self._database.reading() as connection:
                rows = (await connection.execute(_KEYS, {"of": tenant})).all()
        return {row.version: self._unwrap(row) for row in rows}

    async def _first(self, tenant: str) -> dict[int, bytes]:
        key = AESGCM.generate_key(256)
        with available():
            try:
                async with self._database.writing() as connection:
                    await connection.execute(_ADD, self._wrapped(tenant, 1, key))
            except IntegrityError:
                # Another process was faster: then its key is the tenant's.
                return await self._read(tenant)
        return {1: key}

    def _wrapped(self, tenant: str, version: int, key: bytes) -> dict[str, Any]:
        nonce = os.urandom(_NONCE_BYTES)
        wrapped = nonce + AESGCM(self._current.key).encrypt(nonce, key, _bound(tenant, f"keys/{version}"))
        return {"tenant": tenant, "version": version, "master": self._current.name, "wrapped": wrapped}

    def _unwrap(self, row: Any) -> bytes:
        master = self._masters.get(row.master)
        if master is None:
            raise WrongKey(f"a tenant's key is sealed with master key {row.master}, which is not here")
        nonce, wrapped = row.wrapped[:_NONCE_BYTES], row.wrapped[_NONCE_BYTES:]
        try:
            return AESGCM(master.key).decrypt(nonce, wrapped, _bound(row.tenant, f"keys/{row.version}"))
        except InvalidTag:
            raise WrongKey(f"a tenant's key cannot be opened with master key {row.master}") from None


def _bound(tenant: str, place: str) -> bytes:
    return f"{len(tenant)}:{tenant}/{place}".encode("utf-8", "surrogatepass")
