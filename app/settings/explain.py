"""Settings in words: every value with its source, and the reference table of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from app.settings.load import Loaded, describe
from app.settings.tree import Leaf, leaves
from app.telemetry.secret import Secret

_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@/\s]+@")
HIDDEN = "***"


def shown(leaf: Leaf, value: Any) -> str:
    """A value as text, without what must not be seen: secrets, and passwords inside URLs."""
    if isinstance(value, Secret):
        return value.origin or HIDDEN
    if leaf.secret and value and not isinstance(value, list | tuple | dict | msgspec.Struct):
        return HIDDEN
    if isinstance(value, str):
        return _PASSWORD.sub(rf"\1{HIDDEN}@", value)
    return _PASSWORD.sub(rf"\1{HIDDEN}@", msgspec.json.encode(value, enc_hook=_hide).decode())


def _hide(value: Any) -> str:
    return value.origin or HIDDEN if isinstance(value, Secret) else repr(value)


def explain(loaded: Loaded) -> str:
    """Every setting, its value and the source of the value: one a line, in columns."""
    rows = [
        (leaf.path, shown(leaf, getattr(getattr(loaded.settings, leaf.section), leaf.name)), leaf) for leaf in leaves()
    ]
    wide = max(len(path) for path, _, _ in rows)
    tall = min(44, max(len(text) for _, text, _ in rows))
    return "\n".join(
        f"{path:<{wide}}  {text:<{tall}}  {describe(loaded.given[leaf.path])}" for path, text, leaf in rows
    )


PREFACE = """\
# Configuration

Made by `shepherd config docs`; change the settings, not this file.

Each setting has one value, taken from the last of these places that gives one:

1. its default;
2. a settings file, TOML or YAML by its suffix, named by `--config`: a section is a table, `[routing]` or `routing:`;
3. an environment variable: `SHEPHERD__ROUTING__POLICY` sets `routing.policy`. Lists are comma separated or JSON, tables
   are JSON;
4. a command-line flag, where there is one. A flag of a list takes several values: `--worker-urls A B`.

`shepherd config explain` shows every value and where it came from; `shepherd config check` only checks. An unknown name
or a wrong value stops the server with exit code 2 and says which setting it is and where the value came from.

A secret is written `env:NAME` (read from a variable), `file:PATH` (read from a file) or literally, and never shown.
"""


def document() -> str:
    """The configuration reference as Markdown."""
    return "\n".join([PREFACE, *_tables()]) + "\n"


def _tables() -> Iterator[str]:
    section = None
    for leaf in leaves():
        if leaf.section != section:
            yield from ([""] if section is not None else [])
            section = leaf.section
            yield f"## {section}"
            yield ""
            yield "| setting | default | flag | what it decides |"
            yield "|---|---|---|---|"
        default = "" if leaf.default is None else f"`{shown(leaf, leaf.default)}`"
        flag = f"`{leaf.flag}`" if leaf.flag else ""
        about = leaf.description.replace("|", "\\|")
        yield f"| `{leaf.path}` | {default} | {flag} | {about} |"
