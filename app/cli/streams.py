"""`shepherd check-stream`: is this recorded event stream legal?"""

from __future__ import annotations

import argparse
import sys

from app.dialects.openai_responses.check import check_sse


def check(_parsed: argparse.Namespace) -> int:
    """Read SSE from stdin; print what it does wrong. Exit code 1 when it does."""
    violations = check_sse(sys.stdin.buffer.read())
    for violation in violations:
        print(violation)
    if not violations:
        print("The stream is legal.")
    return 1 if violations else 0
