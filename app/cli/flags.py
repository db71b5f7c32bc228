"""Command-line flags, made from the settings that have one."""

from __future__ import annotations

import argparse
from typing import Any

from app.settings.load import flag_leaves
from app.settings.tree import Leaf


def add_flags(parser: argparse.ArgumentParser, *only: str) -> None:
    """Give `parser` the flags of the sections `only`. What is not given on the command line is not in the result."""
    groups: dict[str, Any] = {}
    for leaf in flag_leaves(only):
        if leaf.section not in groups:
            groups[leaf.section] = parser.add_argument_group(leaf.section)
        groups[leaf.section].add_argument(leaf.flag, **_options(leaf))


def _options(leaf: Leaf) -> dict[str, Any]:
    about = leaf.description.replace("%", "%%")
    if leaf.default not in (None, ()) and not leaf.is_switch:
        about += f" (default: {leaf.default})".replace("%", "%%")
    options: dict[str, Any] = {"dest": leaf.path, "default": argparse.SUPPRESS, "help": about}
    if leaf.is_switch:
        return {**options, "action": argparse.BooleanOptionalAction}
    name = leaf.name.upper().removesuffix("_SECS")
    if leaf.is_list:
        return {**options, "nargs": "+", "action": "extend", "metavar": name.removesuffix("S")}
    return {**options, "metavar": name}


def given_flags(parsed: argparse.Namespace) -> dict[str, Any]:
    """The settings given on the command line, by path."""
    return {name: value for name, value in vars(parsed).items() if "." in name}
