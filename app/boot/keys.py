"""The master key at start: from a file, a command, or made on the spot in the data directory."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from app.boot.listening import StartError
from app.db.engine import Database
from app.history.keyring import KEY_BYTES, Keyring, Master, WrongKey
from app.history.settings import HistorySettings
from app.settings.tree import Settings
from app.turn.errors import GatewayError

FILE_NAME = "master.key"
_COMMAND_SECS = 30.0


async def open_keyring(settings: Settings, database: Database, *, secrets: bool = False) -> Keyring:
    """The tenants' keys, used as the settings say, or for `secrets`, which are sealed in any case.

    Raises `StartError` when the keys there are cannot be opened.
    """
    history = settings.history
    masters = [await _current(history, Path(settings.server.data_dir)), *_previous(history)]
    keyring = Keyring(
        database,
        masters,
        monotonic,
        sealing=secrets or history.encrypt,
        accepts_unsealed=history.accept_unsealed and not secrets,
    )
    try:
        await keyring.check()
    except WrongKey as error:
        raise StartError(f"history.master_key_file: {error}. Give the key this database was begun with.") from error
    except GatewayError as error:
        raise StartError(f"cannot read the tenants' keys: {error.message}") from error
    return keyring


async def _current(history: HistorySettings, data_dir: Path) -> Master:
    if history.master_key_command:
        return await _from_command(history.master_key_command)
    if history.master_key_file is not None:
        return _from_file(Path(history.master_key_file))
    path = data_dir / FILE_NAME
    try:
        return _from_file(path) if path.exists() else _made(path)
    except FileExistsError:
        # Another process made it in this moment.
        return _from_file(path)


def _previous(history: HistorySettings) -> Sequence[Master]:
    return [_from_file(Path(name)) for name in history.previous_master_key_files]


def _made(path: Path) -> Master:
    """A new key in a new file that nobody else may read: written aside, then put in place whole."""
    key = os.urandom(KEY_BYTES)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(key) + b"\n")
            file.flush()
            os.fsync(descriptor)
        try:
            path.hardlink_to(aside)
        finally:
            aside.unlink()
    except FileExistsError:
        raise
    except OSError as error:
        raise StartError(f"cannot make the master key {path}: {error.strerror}") from error
    return Master(key)


def _from_file(path: Path) -> Master:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StartError(f"cannot read the master key {path}: {error.strerror}") from error
    return _decoded(text, str(path))


async def _from_command(command: Sequence[str]) -> Master:
    try:
        started = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    except OSError as error:
        raise StartError(f"history.master_key_command: {command[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(_COMMAND_SECS):
            text, _ = await started.communicate()
    except TimeoutError:
        started.kill()
        raise StartError(f"history.master_key_command: {command[0]} did not end in {_COMMAND_SECS:g} s") from None
    if started.returncode != 0:
        raise StartError(f"history.master_key_command: {command[0]} ended with {started.returncode}")
    return _decoded(text, f"what {command[0]} printed")


def _decoded(text: bytes, where: str) -> Master:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise StartError(f"{where} is not a master key: {KEY_BYTES} bytes in base64 are expected")
    return Master(key)
