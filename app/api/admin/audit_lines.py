"""Pages of the audit log as they are exported: JSON lines, or CSV (RFC 4180) for spreadsheets. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from app.tenancy.audit import Entry

Format: TypeAlias = Literal["jsonl", "csv"]
MEDIA: Final[dict[Format, str]] = {"jsonl": "application/x-ndjson", "csv": "text/csv; header=present"}
_COLUMNS: Final = Entry.__struct_fields__
# What a spreadsheet would run. Names of tools are a stranger's words, and arguments anybody's.
_LIVE: Final = ("=", "+", "-", "@", "\t", "\r")


def head(form: Format) -> bytes:
    """What comes before the first page."""
    return _rows([_COLUMNS]) if form == "csv" else b""


def lines(form: Format, page: Sequence[Entry]) -> bytes:
    """A page: a line for each entry. In CSV a text that a spreadsheet would run has a `'` before it."""
    if form == "csv":
        return _rows([[_cell(getattr(entry, name)) for name in _COLUMNS] for entry in page])
    return b"".join(msgspec.json.encode(entry) + b"\n" for entry in page)


def _cell(value: str | float | None) -> str | float:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value.startswith(_LIVE) else value


def _rows(rows: Sequence[Sequence[str | float]]) -> bytes:
    written = io.StringIO(newline="")
    csv.writer(written).writerows(rows)
    return written.getvalue().encode("utf-8", "surrogatepass")
