"""File systems that run full, for tests of root: small, of their own, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PIECE = b"\0" * 4096


class Disk:
    """A file system of some bytes, at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave no room for anything."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(_PIECE)
            except OSError:
                return

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink()

    def protect(self) -> None:
        """Let nothing be written. Nothing may be open for writing."""
        _mount("-o", "remount,ro", str(self.path))


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Disk]:
    """A disk that holds `size`, as mount says it. Raises `LookupError` where nothing may be mounted."""
    path.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        raise LookupError(f"a small disk cannot be mounted here (uid {os.geteuid()})") from error
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
