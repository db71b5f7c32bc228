"""Metrics that the documentation names are there, with the labels it names."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.telemetry.metrics import Metrics
from tests.docs.pages import pages

_ROW = re.compile(r"^\| `(shepherd_\w+)` \| ([^|]*) \|", re.MULTILINE)
_NAME = re.compile(r"shepherd_[a-z_]+")
ROWS = [(name, tuple(re.findall(r"`(\w+)`", labels))) for page in pages() for name, labels in _ROW.findall(page.text)]


def instruments() -> dict[str, Any]:
    """Each instrument by its name as it is told to Prometheus."""
    found: dict[str, Any] = {}
    for each in vars(Metrics()).values():
        for described in each.describe() if hasattr(each, "describe") else ():
            found[described.name + ("_total" if described.type == "counter" else "")] = each
    return found


def test_the_names_are_those_of_instruments() -> None:
    named = {name for page in pages() for span in page.spans() for name in _NAME.findall(span)}
    assert {name for name, _ in ROWS} <= named
    assert named <= instruments().keys()


@pytest.mark.parametrize(("name", "labels"), ROWS)
def test_the_labels_are_theirs(name: str, labels: tuple[str, ...]) -> None:
    # It raises for others, and for some of them.
    instruments()[name].labels(**dict.fromkeys(labels, "x"))
