"""What lies in changes.d can go into the changelog."""

from __future__ import annotations

import re
import tomllib

from tests.docs.pages import ROOT


def test_every_file_has_a_kind_and_says_something_short() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["towncrier"]
    kinds = {kind["directory"] for kind in settings["type"]}
    for path in (ROOT / "changes.d").iterdir():
        if path.name in settings["ignore"]:
            continue
        found = re.fullmatch(r"[a-z0-9-]+\.([a-z]+)\.md", path.name)
        assert found, path.name
        assert found[1] in kinds, path.name
        text = path.read_text("utf-8").strip()
        assert text, path.name
        assert "\n\n" not in text, path.name


def test_the_changelog_has_the_place_where_releases_go() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["towncrier"]
    assert (ROOT / settings["filename"]).read_text("utf-8").count(settings["start_string"]) == 1
