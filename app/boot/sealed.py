"""The key secrets are sealed under, at start."""

from __future__ import annotations

from pathlib import Path

from app.boot.listening import StartError
from app.mcp.sealing import KeySealer, master_key
from app.settings.tree import Settings

KEY_FILE = "secrets.key"


def open_sealer(settings: Settings) -> KeySealer:
    """The operator's key, or the one in the data directory. Raises `StartError` for one that cannot be used."""
    given = settings.mcp.secrets_key
    try:
        if given is not None:
            return KeySealer(bytes.fromhex(given.reveal()))
        return KeySealer(master_key(Path(settings.server.data_dir) / KEY_FILE))
    except (ValueError, OSError) as error:
        raise StartError(f"the key of the stored secrets cannot be used: {error}") from error
