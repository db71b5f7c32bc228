"""What a stdio server may have, and how nothing of it is left: limits, a directory of its own, an end to all its tree.

What leaves the process group is found by a word in its environment, which everything a server starts inherits.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from app.mcp import confine

MARK = "MCP_SERVER_RUN"

_Most = Annotated[int, Meta(gt=0)]


class Confinement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a server that is a command is held to. What is not set is not limited; processes are counted by user.

    `memory_bytes` is address space, of which node reserves far more than it uses. `directory` is where it runs; not
    set: in a directory of its own, which is removed after.
    """

    memory_bytes: _Most | None = None
    cpu_secs: _Most | None = None
    open_files: _Most = 1024
    processes: _Most | None = None
    file_bytes: _Most | None = None
    new_privileges: bool = False
    directory: Annotated[str, Meta(min_length=1)] | None = None

    def command(self, command: Sequence[str]) -> list[str]:
        """What to run instead of `command`."""
        limits = {
            "RLIMIT_AS": self.memory_bytes,
            "RLIMIT_CPU": self.cpu_secs,
            "RLIMIT_NOFILE": self.open_files,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_FSIZE": self.file_bytes,
        }
        known = {name: most for name, most in limits.items() if most is not None}
        wanted = msgspec.json.encode({"limits": known, "new_privileges": self.new_privileges}).decode()
        return [sys.executable, "-I", "-S", str(Path(confine.__file__)), wanted, *command]


USUAL: Final = Confinement()


class Room(Struct, frozen=True):
    """Where one process runs, and the word that all it starts is known by."""

    directory: str
    own: bool
    mark: str

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """`env` with what belongs to the room: temporary files go where they are removed."""
        return {**({"TMPDIR": self.directory} if self.own else {}), **env, MARK: self.mark}

    def clear(self) -> None:
        """Kill what is left of the process's tree, and remove its directory."""
        # Whoever is forking right now is found the next time; nobody forks faster than this for long.
        for _ in range(20):
            if not _killed(f"{MARK}={self.mark}".encode()):
                break
        if self.own:
            shutil.rmtree(self.directory, ignore_errors=True)


def room(confinement: Confinement, mark: str) -> Room:
    """A room for one process. Raises `OSError`."""
    if confinement.directory is not None:
        return Room(confinement.directory, own=False, mark=mark)
    return Room(tempfile.mkdtemp(prefix="shepherd-mcp-"), own=True, mark=mark)


def _killed(word: bytes) -> int:
    found = 0
    for place in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            # Opened before it is looked at: a number that is given to somebody else meanwhile is not them.
            handle = os.pidfd_open(int(place.parent.name))
            try:
                if word in place.read_bytes().split(b"\0"):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    found += 1
            finally:
                os.close(handle)
    return found
