"""The key of sealed tokens: the operator's, or one of our own in the data directory."""

from __future__ import annotations

from pathlib import Path

from app.boot.listening import StartError
from app.history.keyring import Keyring
from app.responses.sealing import KEY_BYTES, TenantTokens, key_in
from app.settings.tree import Settings

KEY_FILE = "sealing.key"


def open_sealer(settings: Settings, keyring: Keyring) -> TenantTokens:
    """What seals tokens with that key and the tenants' own.

    Raises `StartError` for a key that is too short or cannot be read or made.
    """
    given = settings.responses.sealing_key
    if given:
        key = given.reveal().encode()
    else:
        path = Path(settings.server.data_dir) / KEY_FILE
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            key = key_in(path)
        except OSError as error:
            raise StartError(f"cannot read or make the key in {path}: {error.strerror or error}") from error
    if len(key) < KEY_BYTES:
        raise StartError(f"responses.sealing_key must have at least {KEY_BYTES} bytes")
    return TenantTokens(key, keyring)
