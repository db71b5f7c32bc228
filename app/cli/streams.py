"""`shepherd check-stream`: is this recorded event stream legal?"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec

from app.dialects.openai_responses.check import check_sse
from app.dialects.openai_responses.check_socket import check_socket

_frame = msgspec.json.Decoder(dict[str, Any])


def check(parsed: argparse.Namespace) -> int:
    """Read a stream from stdin; print what it does wrong. Exit code 1 when it does."""
    given = sys.stdin.buffer.read()
    violations = _check_frames(given) if parsed.socket else check_sse(given)
    for violation in violations:
        print(violation)
    if not violations:
        print("The stream is legal.")
    return 1 if violations else 0


def _check_frames(lines: bytes) -> list[str]:
    try:
        return check_socket([_frame.decode(line) for line in lines.split(b"\n") if line.strip()])
    except msgspec.DecodeError as error:
        return [f"a line is no JSON object: {error}"]
