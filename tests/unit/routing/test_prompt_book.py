"""Prompts become rows of keys that agree as far as the prompts do, however they were read."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from app.routing.prompts import PromptBook
from app.turn.items import Item, Message, Text, ToolSpec
from app.turn.request import TurnRequest


def said(text: str, role: str = "user") -> Item:
    return Message(role, (Text(text),))  # type: ignore[arg-type]


def turn(*items: Item, **fields: object) -> TurnRequest:
    return TurnRequest(model="m", items=items, **fields)  # type: ignore[arg-type]


LONG = "a text that fills some blocks " * 200


def keys(request: TurnRequest, book: PromptBook | None = None, **names: str) -> list[int]:
    return list((book or PromptBook()).read(request, **names).keys)


def common(one: list[int], other: list[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_prompts_share_as_many_keys_as_they_share_blocks() -> None:
    one, other = keys(turn(said(LONG), said("x" * 5000))), keys(turn(said(LONG), said("y" * 5000)))
    assert 0.8 * len(LONG) / 256 < common(one, other) < 1.2 * len(LONG) / 256


def test_what_comes_first_separates_everything() -> None:
    plain = keys(turn(said(LONG)))
    tool = ToolSpec(name="add", parameters=msgspec.Raw(b"{}"))
    for other in (
        turn(said(LONG), instructions="Be kind."),
        turn(said(LONG), tools=(tool,)),
        TurnRequest(model="n", items=(said(LONG),)),
        turn(said(LONG), extra={"cache_salt": msgspec.Raw(b'"s"')}),
    ):
        assert common(plain, keys(other)) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=900), min_size=1, max_size=8), st.data())
def test_a_remembered_prompt_changes_no_key(texts: list[str], data: st.DataObject) -> None:
    items = [said(text) for text in texts]
    cut = data.draw(st.integers(0, len(items)))
    book = PromptBook()
    book.read(turn(*items[:cut]), run="resp_1")
    assert keys(turn(*items), book, conversation="resp_1") == keys(turn(*items))


def test_another_prompt_under_a_remembered_name_is_read_anew() -> None:
    book = PromptBook()
    book.read(turn(said(LONG), said("b")), run="resp_1")
    for other in (turn(said(LONG), said("c"), said("d")), turn(said("z")), turn(said(LONG), instructions="x")):
        assert keys(other, book, conversation="resp_1") == keys(other)


def test_remembers_no_more_than_it_may() -> None:
    book = PromptBook(most_keys=100)
    for number in range(50):
        book.read(turn(said(f"{number} {LONG}")), run=f"resp_{number}")
    assert len(book) <= 1 + 100 * 256 // len(LONG)


def test_learns_how_many_bytes_a_token_has() -> None:
    book = PromptBook()
    request = turn(said(LONG))
    size = book.read(request).size
    for _ in range(100):
        book.counted("m", book.read(request), size // 2)
    prompt = book.read(request)
    assert abs(prompt.tokens - size / 2) < size / 50
    assert abs(prompt.block_tokens - 128) < 4
