"""Every row of the security list names tests, and every test it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.docs.pages import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "mcp-security.md").read_text("utf-8").splitlines()
    if re.match(r"\| \d+ \|", line)
]


@cache
def names_in(path: str) -> frozenset[str]:
    """The test functions of a file."""
    tree = ast.parse((ROOT / "tests" / path).read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_"))


def test_the_list_is_whole() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 26))
    assert all(len(row) == 4 and all(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_each_row_names_tests_that_are_there(row: list[str]) -> None:
    named = re.findall(r"`([^`]+)`", row[3])
    assert named
    for each in named:
        path, _, name = each.partition("::")
        assert name in names_in(path), each
