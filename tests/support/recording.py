"""A gateway that writes down what it says: `python -m tests.support.recording serve FLAGS…`, or any ASGI app.

`tests.support.processes` starts every gateway this way and reads the transcript when the gateway has ended, so that no
test has to remember to. What is written is what leaves the application, before anything below can mend it; a line is
written before its message is sent, so that it is there when the process dies.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import count
from pathlib import Path
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

import app.boot.serve as serving
from app.api.services import Services
from app.cli.main import main

# Names the file, for gateways that other programs start.
RECORD_TO = "RECORD_TO"
RECORDED = "/v1/"


class Recorder:
    """An ASGI app around another. Lines are appended to `path`; several gateways may have a file each."""

    def __init__(self, app: ASGIApp, path: Path) -> None:
        self._app = app
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._numbers = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, and write down its answer."""
        asked: dict[str, Any] = dict(scope)
        if asked["type"] == "lifespan" or not asked["path"].startswith(RECORDED):
            await self._app(scope, receive, send)
            return
        number = next(self._numbers)
        method = asked.get("method", "SOCKET")
        self._write(number, "asked", [method, asked["path"], asked.get("query_string", b"").decode("latin-1")])

        async def recorded(message: Message) -> None:
            for kind, value in _said(dict(message)):
                self._write(number, kind, value)
            await send(message)

        await self._app(scope, receive, recorded)

    def _write(self, number: int, kind: str, value: object) -> None:
        os.write(self._file, json.dumps([number, kind, value]).encode() + b"\n")


def _said(message: dict[str, Any]) -> list[tuple[str, object]]:
    match message["type"]:
        case "http.response.start":
            types = [value.decode() for name, value in message["headers"] if name.lower() == b"content-type"]
            return [("began", [message["status"], types[0] if types else ""])]
        case "http.response.body":
            body = ("body", message.get("body", b"").decode("latin-1"))
            return [body] if message.get("more_body") else [body, ("ended", None)]
        case "websocket.send":
            return [("frame", message["text"])]
        case "websocket.close":
            return [("ended", message.get("code"))]
        case _:
            return []


def record(path: Path) -> None:
    """From now on, the gateways of this process write to `path`."""
    whole = serving.create_app

    def recorded(services: Services) -> ASGIApp:
        return Recorder(whole(services), path)

    serving.create_app = recorded


if __name__ == "__main__":
    record(Path(os.environ[RECORD_TO]))
    sys.exit(main(sys.argv[1:]))
