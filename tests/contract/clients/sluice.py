"""A port before another one, where an answer can be kept back until a test has said what it has to say meanwhile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer

# Nobody keeps anything back for so long: a test that would is over by then.
_LONGEST_SECS = 120


class Sluice:
    """Answers to requests that have `asks` in them are kept back while it is shut, after their first `lets` events."""

    def __init__(self, target: int, asks: bytes, lets: int = 0) -> None:
        self.target = target
        self.asks = asks
        self.lets = lets
        self.url = ""
        self._open = threading.Event()
        self._open.set()

    @contextmanager
    def shut(self) -> Generator[None]:
        """Until the block ends."""
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()

    def wait(self) -> None:
        """Return once it is open."""
        self._open.wait(_LONGEST_SECS)

    @property
    def is_shut(self) -> bool:
        """Whether answers are kept back."""
        return not self._open.is_set()


class _Connection(BaseRequestHandler):
    sluice: Sluice
    _left: int | None = None
    """How many events of the answer may pass; None: all."""

    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.sluice.target)) as there:
            asking = threading.Thread(target=self._ask, args=(there,), daemon=True)
            asking.start()
            while data := there.recv(65536):
                self._pass(data)
            self.request.shutdown(socket.SHUT_RDWR)
            asking.join()

    def _ask(self, there: socket.socket) -> None:
        with suppress(OSError):
            while data := self.request.recv(65536):
                if self.sluice.asks in data:
                    self._left = self.sluice.lets if self.sluice.is_shut else None
                there.sendall(data)
        with suppress(OSError):
            there.shutdown(socket.SHUT_RDWR)

    def _pass(self, data: bytes) -> None:
        while self._left and (end := data.find(b"\n\n")) >= 0:
            self.request.sendall(data[: end + 2])
            data, self._left = data[end + 2 :], self._left - 1
        if self._left == 0:
            self.sluice.wait()
            self._left = None
        self.request.sendall(data)


@contextmanager
def sluice(url: str, asks: bytes, lets: int = 0) -> Generator[Sluice]:
    """A sluice before the server at `url`, which is open."""
    place, _, path = url.removeprefix("http://").partition("/")
    made = Sluice(int(place.partition(":")[2]), asks, lets)
    handler = type("Connection", (_Connection,), {"sluice": made})
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        made.url = f"http://127.0.0.1:{server.server_address[1]}/{path}".removesuffix("/")
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        yield made
        server.shutdown()
        serving.join()
