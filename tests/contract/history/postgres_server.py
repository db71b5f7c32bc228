"""A PostgreSQL of the tests' own: the server binary of this machine, a new directory, a private socket, no TCP."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest


def find_binaries() -> Path | None:
    """The directory with `initdb` and `postgres`: on the path, where Debian, Red Hat and Homebrew put them, or where
    tests/support/install_postgres.sh does."""
    on_path = [Path(found).resolve().parent] if (found := shutil.which("postgres")) else []
    places = [
        *on_path,
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        *Path("/usr").glob("pgsql-*/bin"),
        *Path("/opt/homebrew/opt").glob("postgresql@*/bin"),
        *(Path(__file__).parents[3] / ".tools" / "postgres").glob("*/pginstall/bin"),
    ]
    found = [place for place in places if (place / "postgres").exists() and (place / "initdb").exists()]
    return found[0] if found else None


class Server:
    """A running server. `url(name)` is a database of it; `create(name)` makes one."""

    def __init__(self, binaries: Path, home: Path) -> None:
        self._binaries = binaries
        self.home = home
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, name: str = "postgres") -> str:
        """A URL as a user would write it."""
        return f"postgresql://postgres@/{name}?host={self.home}"

    async def create(self, name: str, template: str = "template1") -> str:
        """Make an empty database, or a copy of one; its URL."""
        connection = await asyncpg.connect(host=str(self.home), user="postgres", database="postgres")
        await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        await connection.close()
        return self.url(name)

    def initialise(self) -> None:
        """Make the directory a database cluster."""
        self._run("initdb", "-D", str(self.home / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """Start and wait until it answers."""
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.home}", "-c", "fsync=off"]
        log = (self.home / "log").open("ab")
        command = [str(self._binaries / "postgres"), "-D", str(self.home / "data"), *options]
        self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.home, **_identity())
        log.close()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_ready():
                return
            time.sleep(0.05)
        raise RuntimeError("postgres did not start:\n" + (self.home / "log").read_text()[-2000:])

    def _is_ready(self) -> bool:
        # The server writes its state into the eighth line of this file.
        try:
            lines = (self.home / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def own_directory(self, path: Path) -> None:
        """Make an empty directory that is the server's."""
        path.mkdir()
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_identity()["user"])
            os.chown(path, owner.pw_uid, owner.pw_gid)
            path.chmod(0o700)

    def stop(self) -> None:
        """Stop it at once, open connections or not."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / program), *arguments],
            capture_output=True,
            check=False,
            text=True,
            timeout=180,
            cwd=self.home,
            **_identity(),
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr or done.stdout}")


@contextmanager
def running() -> Iterator[Server]:
    """A server for as long as the block lasts. Raises `LookupError` when this machine has none."""
    binaries = find_binaries()
    if binaries is None:
        raise LookupError("no PostgreSQL server on this machine (looked for initdb and postgres)")
    # A socket's path must be short, so not below pytest's own directories.
    home = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_identity()["user"])
            os.chown(home, owner.pw_uid, owner.pw_gid)
        server = Server(binaries, home)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _identity() -> dict[str, str | list[str]]:
    """Whom to run as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def running_or_skip() -> Iterator[Server]:
    """A PostgreSQL server, or a skip that says why; for fixtures."""
    try:
        with running() as server:
            yield server
    except LookupError as reason:
        pytest.skip(str(reason))
