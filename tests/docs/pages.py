"""The documentation as data: its pages, their code blocks, code spans and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Page(Struct, frozen=True):
    """One Markdown file."""

    path: Path
    text: str

    def __repr__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def prose(self) -> str:
        """The text without its code blocks."""
        return _FENCE.sub("", self.text)

    def blocks(self, language: str) -> list[str]:
        """The fenced code blocks in `language`."""
        return [body for kind, body in _FENCE.findall(self.text) if kind == language]

    def spans(self) -> list[str]:
        """The inline code of the prose."""
        return _SPAN.findall(self.prose)

    def links(self) -> list[str]:
        """The targets of the links in the prose."""
        return _LINK.findall(self.prose)

    def anchors(self) -> set[str]:
        """The anchors of its headings, as forges make them."""
        return {_anchor(heading) for heading in _HEADING.findall(self.prose)}


def pages() -> list[Page]:
    """All documentation, in a stable order."""
    return [Page(path, path.read_text("utf-8")) for path in sorted(_paths())]


def page(name: str) -> Page:
    """One page, by its path from the root."""
    return Page(ROOT / name, (ROOT / name).read_text("utf-8"))


def _paths() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    for folder in ("docs", "deploy", "changes.d"):
        yield from (ROOT / folder).rglob("*.md")


def _anchor(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.replace(" ", "-")
