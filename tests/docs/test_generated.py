"""What is made from the code is what the code makes, and says something about everything."""

from __future__ import annotations

from app.settings.tree import leaves
from tests.docs.generated import ROOT, texts


def test_generated_text_is_up_to_date() -> None:
    stale = [str(path.relative_to(ROOT)) for path, text in texts().items() if path.read_text("utf-8") != text]
    assert not stale, f"run `make docs`: {stale}"


def test_every_setting_is_described() -> None:
    silent = [leaf.path for leaf in leaves() if not leaf.description.rstrip().endswith((".", ")"))]
    assert not silent


def test_every_setting_is_documented_with_its_flag() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    for leaf in leaves():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{leaf.path}` ")]
        assert leaf.flag is None or f"`{leaf.flag}`" in row
