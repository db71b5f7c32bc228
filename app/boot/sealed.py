"""The key secrets are sealed under, at start."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from app.boot.listening import StartError
from app.mcp.sealing import KeySealer, checked, master_key
from app.settings.tree import Settings

KEY_FILE = "secrets.key"


def open_sealer(settings: Settings) -> KeySealer:
    """Seals under the operator's key, or the one in the data directory, which is made when it is first needed.

    Raises `StartError` for a configured key that cannot be used.
    """
    given = settings.mcp.secrets_key
    if given is None:
        return KeySealer(partial(master_key, Path(settings.server.data_dir) / KEY_FILE))
    try:
        key = checked(bytes.fromhex(given.reveal()))
    except ValueError as error:
        raise StartError(f"mcp.secrets_key cannot be used: {error}") from error
    return KeySealer(lambda: key)
