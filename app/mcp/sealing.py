"""Secrets at rest as older versions sealed them: AES-256-GCM under a key of each tenant's, bound to the tenant and to
where it is kept. What is new is sealed with the tenants' keys in the database, which can be shredded.

The tenants' keys are derived from one master key, which is the operator's: a setting, or a file that is made when there
is none. Without it what is in the database is noise; a value that was moved to another place or tenant does not open.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.turn.errors import Unavailable

_VERSION = b"\x01"
_NONCE = 12
_KEY = 32


class KeySealer:
    """The `Sealer` over a master key, which is asked for when there is something to seal. Methods raise `Unavailable`
    when it cannot be had."""

    def __init__(self, master: Callable[[], bytes]) -> None:
        self._master = master
        self._keys: dict[str, AESGCM] = {}

    async def ready(self, tenant: str) -> None:
        """Nothing is waited for."""

    def seal(self, tenant: str, place: str, plain: bytes) -> bytes:
        """`plain`, for nobody else's eyes and at no other place."""
        nonce = secrets.token_bytes(_NONCE)
        return _VERSION + nonce + self._key(tenant).encrypt(nonce, plain, _VERSION + _bound(tenant, place))

    def open(self, tenant: str, place: str, sealed: bytes) -> bytes:
        """What was sealed. Raises `Unavailable` for what was not, not here, or under another key."""
        nonce, rest = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            # The version is part of what is authenticated: of another one, nothing opens.
            return self._key(tenant).decrypt(nonce, rest, sealed[:1] + _bound(tenant, place))
        except (InvalidTag, ValueError) as error:
            message = "A stored secret cannot be opened: it was sealed under another key, or has been tampered with."
            raise Unavailable(message, code="secret_unreadable") from error

    def _key(self, tenant: str) -> AESGCM:
        if tenant not in self._keys:
            try:
                master = checked(self._master())
            except (OSError, ValueError) as error:
                message = f"The key of the stored secrets cannot be used: {error}"
                raise Unavailable(message, code="secrets_key_missing") from error
            derived = HKDF(SHA256(), _KEY, salt=None, info=b"shepherd/tenant/" + tenant.encode()).derive(master)
            self._keys[tenant] = AESGCM(derived)
        return self._keys[tenant]


def checked(master: bytes) -> bytes:
    """The key, if it is one. Raises `ValueError`."""
    if len(master) < _KEY:
        raise ValueError(f"the key is shorter than {_KEY} bytes")
    return master


def master_key(path: Path) -> bytes:
    """The key in the file, which is made, for nobody else to read, when it is not there. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return bytes.fromhex(path.read_text("ascii").strip())
    key = secrets.token_bytes(_KEY)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")
    return key


def _bound(tenant: str, place: str) -> bytes:
    # Lengths first, so that no two pairs look the same.
    return b"%d|%s|%s" % (len(tenant.encode()), tenant.encode(), place.encode())
