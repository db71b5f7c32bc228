"""Ports for the processes that tests start."""

from __future__ import annotations

import os
import random
import socket
from typing import Final

# Below those that Linux gives to outgoing connections: one of these would else take a port before who asked for it
# listens there, or while a process that was killed is started again.
_LOWEST: Final = 10_240
_HIGHEST: Final = 32_767
# Of its own: processes that test side by side are seeded alike.
_dice = random.Random()


def _share(every: range) -> range:
    """What is this process's, of those that test side by side: what one was given must not be given to another, which
    cannot see it before somebody listens there."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    # One that is started in the place of one that died has a number of its own.
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % count
    return every[number::count]


_mine = _share(range(_LOWEST, _HIGHEST + 1))
_given = set[int]()


def free_port() -> int:
    """A port of 127.0.0.1 where nothing listens, and that this process was never given before."""
    while True:
        port = _dice.choice(_mine)
        if port not in _given and free(port):
            _given.add(port)
            return port


def free_block(count: int, rng: random.Random) -> int:
    """The first of so many ports in a row that nobody listens on."""
    while True:
        base = rng.randint(_LOWEST, _HIGHEST + 1 - count)
        if all(free(port) for port in range(base, base + count)):
            return base


def free(port: int) -> bool:
    """Whether somebody could listen there."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
