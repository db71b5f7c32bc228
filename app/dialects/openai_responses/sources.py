"""Where an answer comes from: the pages a search found, and where the answer names one of them.

A search tool's result is text. The pages in it are found in JSON, as objects with a `url`, or else as links in the
text; an answer cites a page where it writes the page's URL. Nothing is cited that the answer does not name itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

MOST_SOURCES = 100

_LINK = re.compile(r"\[([^\]\n]{1,300})\]\((https?://[^\s)]+)\)|(https?://[^\s<>\"')\]]+)")


def sources(output: str) -> dict[str, str]:
    """The pages in a search's result: their titles by URL, in order."""
    try:
        found = dict(_in_json(msgspec.json.decode(output)))
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        found = dict(_in_text(output))
    return dict(list(found.items())[:MOST_SOURCES])


def citations(text: str, known: Mapping[str, str]) -> list[dict[str, Any]]:
    """An annotation for each place where the text names one of the `known` pages, in the order of the text."""
    found: list[dict[str, Any]] = []
    for match in _LINK.finditer(text):
        url = (match.group(2) or match.group(3)).rstrip(".,;:!?")
        if url in known:
            end = match.end() - (len(match.group(3)) - len(url) if match.group(3) else 0)
            place = {"start_index": match.start(), "end_index": end}
            found.append({"type": "url_citation", **place, "url": url, "title": known[url]})
    return found


def _in_json(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _in_json(each)
    elif isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        url = fields.get("url")
        if isinstance(url, str):
            title = fields.get("title")
            yield url, title if isinstance(title, str) else url
        for each in fields.values():
            if isinstance(each, dict | list):
                yield from _in_json(each)


def _in_text(text: str) -> Iterator[tuple[str, str]]:
    for match in _LINK.finditer(text):
        title, url = match.group(1), (match.group(2) or match.group(3)).rstrip(".,;:!?")
        yield url, title or url
