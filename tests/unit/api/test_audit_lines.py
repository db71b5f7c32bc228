"""The audit log as a file: what was written is what is read, and nothing of it runs."""

import csv
import io
import json

from app.api.admin.audit_lines import head, lines
from app.tenancy.audit import Entry

HOSTILE = '=HYPERLINK("https://evil.example","a")'
ENTRIES = [
    Entry(
        tenant="t",
        at=1.5,
        principal="p",
        action="mcp.tool.call",
        tool=HOSTILE,
        arguments='{"a":"x,\\"y\\"\\n"}',
        number=1,
    ),
    Entry(tenant="t", at=2.0, principal="p", action="mcp.tool.call", tool="two\r\nlines", detail="@sum", number=2),
]


def test_csv_is_read_as_it_was() -> None:
    text = (head("csv") + lines("csv", ENTRIES[:1]) + lines("csv", ENTRIES[1:])).decode()
    one, two = csv.DictReader(io.StringIO(text, newline=""))
    assert (one["number"], one["at"], one["arguments"]) == ("1", "1.5", ENTRIES[0].arguments)
    assert (two["tool"], two["arguments"]) == ("two\r\nlines", "")


def test_a_spreadsheet_runs_nothing_of_it() -> None:
    text = lines("csv", ENTRIES).decode()
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert f"'{HOSTILE}" in cells
    assert "'@sum" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "@", "+", "-"))]


def test_json_lines_are_the_entries() -> None:
    assert head("jsonl") == b""
    found = [json.loads(line) for line in lines("jsonl", ENTRIES).splitlines()]
    assert [each["tool"] for each in found] == [HOSTILE, "two\r\nlines"]
