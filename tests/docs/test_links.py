"""Links inside the repository lead somewhere."""

from __future__ import annotations

import pytest

from tests.docs.pages import ROOT, Page, pages


@pytest.mark.parametrize("each", pages(), ids=repr)
def test_links_resolve(each: Page) -> None:
    inside = [link for link in each.links() if not link.startswith(("https://", "http://", "mailto:"))]
    dead = [link for link in inside if not leads_somewhere(each, link)]
    assert not dead


def leads_somewhere(each: Page, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (each.path.parent / name).resolve() if name else each.path
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or anchor in Page(target, target.read_text("utf-8")).anchors()


def test_every_page_is_reached_from_the_readme() -> None:
    seen = {ROOT / "README.md"}
    ahead = list(seen)
    while ahead:
        here = ahead.pop()
        for link in Page(here, here.read_text("utf-8")).links():
            target = (here.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in seen:
                seen.add(target)
                ahead.append(target)
    changes = ROOT / "changes.d"
    lost = [str(each) for each in pages() if each.path not in seen and each.path.parent != changes]
    assert not lost
