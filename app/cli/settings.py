"""`shepherd config`: explain, check, docs."""

from __future__ import annotations

import argparse

from app.cli.flags import given_flags
from app.settings import explain as words
from app.settings.load import load


def explain(parsed: argparse.Namespace) -> int:
    """Print every value and its source."""
    print(words.explain(load(given_flags(parsed))))
    return 0


def check(parsed: argparse.Namespace) -> int:
    """Say that the settings are usable; when they are not, `load` raises."""
    load(given_flags(parsed))
    print("The settings are valid.")
    return 0


def docs(_parsed: argparse.Namespace) -> int:
    """Print the configuration reference."""
    print(words.document(), end="")
    return 0
