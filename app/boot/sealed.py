"""What the MCP room's secrets are sealed with, at start: the keys of their tenants, as everything else that is kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from app.boot.listening import StartError
from app.history.keyring import Keyring
from app.mcp.sealing import KeySealer, checked, master_key
from app.settings.tree import Settings
from app.turn.errors import Unavailable

KEY_FILE = "secrets.key"


class SecretSealer:
    """The MCP room's `Sealer`. `before` is what sealed these secrets in older versions, where its key is still here."""

    def __init__(self, keyring: Keyring, before: KeySealer | None) -> None:
        self._keyring = keyring
        self._before = before

    async def ready(self, tenant: str) -> None:
        """See `Sealer`."""
        await self._keyring.ready(tenant)

    def seal(self, tenant: str, place: str, plain: bytes) -> bytes:
        """See `Sealer`."""
        return self._keyring.seal(tenant, place, plain)

    def open(self, tenant: str, place: str, sealed: bytes) -> bytes:
        """See `Sealer`."""
        try:
            return self._keyring.open(tenant, place, sealed)
        except Unavailable as error:
            if self._before is None:
                message = "A stored secret cannot be opened: its key is gone, or it has been tampered with."
                raise Unavailable(message, code="secret_unreadable") from error
            return self._before.open(tenant, place, sealed)

    def in_clear(self, tenant: str, place: str, sealed: bytes) -> bytes | None:
        """What an older version sealed; None for what is sealed with the tenant's keys, or by nobody we know."""
        try:
            self._keyring.open(tenant, place, sealed)
        except Unavailable:
            try:
                return None if self._before is None else self._before.open(tenant, place, sealed)
            except Unavailable:
                return None
        return None


def open_secrets(settings: Settings, keyring: Keyring) -> SecretSealer:
    """Over the keyring. Raises `StartError` for a configured older key that cannot be used."""
    given = settings.mcp.secrets_key
    if given is None:
        path = Path(settings.server.data_dir) / KEY_FILE
        return SecretSealer(keyring, KeySealer(partial(master_key, path)) if path.exists() else None)
    try:
        key = checked(bytes.fromhex(given.reveal()))
    except ValueError as error:
        raise StartError(f"mcp.secrets_key cannot be used: {error}") from error
    return SecretSealer(keyring, KeySealer(lambda: key))
