"""Content that clients carry for us, encrypted: AES-256-GCM under a key of its tenant's.

The tenant's key is made by HKDF (RFC 5869) from the server's and from a secret of the tenant's own, which goes with the
tenant: what its clients still hold cannot be read then. A token is `shp2.` and the URL-safe base64 of nonce and
ciphertext. Those of older versions, `shp1.`, were made without the tenant's secret. Whatever else comes in was sealed
by somebody else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_NONCE_BYTES = 12
_OLDER, _MARK = "shp1.", "shp2."
_TOKENS = "sealed tokens"


class Secrets(Protocol):
    """Where tenants' secrets come from."""

    async def ready(self, tenant: str) -> None:
        """Have the tenant's at hand. Raises `Unavailable`."""
        ...

    def name(self, tenant: str, person: str) -> str:
        """A hash of `person`, keyed with the tenant's secret."""
        ...


class TenantTokens:
    """The `TokenSealer` port. `key` are at least 32 secret bytes; all servers that share clients share the key."""

    def __init__(self, key: bytes, secrets: Secrets) -> None:
        self._tokens = AesTokens(key, _MARK)
        self._older = AesTokens(key)
        self._secrets = secrets
        self._tenants: dict[str, str] = {}

    async def ready(self, tenant: str) -> None:
        """See `TokenSealer`."""
        await self._secrets.ready(tenant)
        self._tenants[tenant] = f"{tenant}\0{self._secrets.name(tenant, _TOKENS)}"

    def seal(self, tenant: str, plain: bytes) -> str:
        """See `TokenSealer`."""
        return self._tokens.seal(self._tenants[tenant], plain)

    def open(self, tenant: str, token: str) -> bytes | None:
        """See `TokenSealer`."""
        if token.startswith(_OLDER):
            return self._older.open(tenant, token)
        named = self._tenants.get(tenant)
        return None if named is None else self._tokens.open(named, token)


class AesTokens:
    """Tokens under one key, as older versions made them. `mark` is what they begin with."""

    def __init__(self, key: bytes, mark: str = _OLDER) -> None:
        self._mark = mark
        if len(key) < KEY_BYTES:
            raise ValueError(f"the key of sealed tokens has {len(key)} bytes; at least {KEY_BYTES} are needed")
        self._nonces = _key_of(key, "nonces of all tenants")

        def cipher(tenant: str) -> AESGCM:
            return AESGCM(_key_of(key, tenant))

        self._cipher = lru_cache(maxsize=1024)(cipher)

    async def ready(self, tenant: str) -> None:
        """Nothing is needed but the key."""

    def seal(self, tenant: str, plain: bytes) -> str:
        """A token that only this tenant's requests can bring back."""
        # From the content: a run that begins again has to say the same, and two contents never share a nonce.
        nonce = hashlib.blake2b(plain, key=self._nonces, person=_person(tenant), digest_size=_NONCE_BYTES).digest()
        sealed = nonce + self._cipher(tenant).encrypt(nonce, plain, self._mark.encode())
        return self._mark + base64.urlsafe_b64encode(sealed).decode()

    def open(self, tenant: str, token: str) -> bytes | None:
        """What was sealed; None for a token of another tenant, another server, or nobody at all."""
        if not token.startswith(self._mark):
            return None
        try:
            sealed = base64.b64decode(token[len(self._mark) :].encode("ascii"), b"-_", validate=True)
            return self._cipher(tenant).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._mark.encode())
        except (InvalidTag, binascii.Error, UnicodeEncodeError, ValueError):
            return None


def key_in(path: Path) -> bytes:
    """The key in the file, which is made when missing and readable by its owner only. Raises `OSError`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(descriptor, "wb") as file:
        key = os.urandom(KEY_BYTES)
        file.write(key)
    return key


def _person(tenant: str) -> bytes:
    return hashlib.blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _key_of(key: bytes, tenant: str) -> bytes:
    info = b"shepherd sealed tokens\0" + tenant.encode("utf-8", "surrogatepass")
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(key)
