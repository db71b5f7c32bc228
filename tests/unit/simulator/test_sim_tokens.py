"""Tokens are text seen as numbers: nothing is lost, and longer texts begin with the tokens of shorter ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.simulator.tokens import Mark, decode, encode, pieces, tokens_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(TEXT)
def test_decoding_gives_the_text_back(text: str) -> None:
    assert decode(encode(text)) == text


@given(TEXT, TEXT)
def test_a_longer_text_begins_with_the_tokens_of_a_shorter_one(text: str, more: str) -> None:
    whole = len(text.encode()) // 4
    assert encode(text + more)[:whole] == encode(text)[:whole]


@given(TEXT, st.integers(0, 80))
def test_the_pieces_of_the_first_tokens_are_what_those_tokens_say(text: str, count: int) -> None:
    tokens = encode(text)
    said = pieces(text, tokens[:count])
    assert len(said) == min(count, len(tokens))
    assert "".join(said) == decode(tokens[:count], "ignore")
    assert "".join(pieces(text, tokens)) == text


@pytest.mark.parametrize(("text", "count"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("🐑", 1), ("a🐑", 2)])
def test_four_bytes_are_a_token(text: str, count: int) -> None:
    assert len(encode(text)) == count


def test_a_character_in_two_tokens_comes_with_the_second() -> None:
    assert pieces("ab🐑", encode("ab🐑")) == ["ab", "🐑"]


@given(TEXT)
def test_marks_are_never_text(text: str) -> None:
    assert not set(encode(text)) & set(Mark)
    assert decode(tokens_of([Mark.USER, *encode(text), Mark.END])) == text


def test_ids_have_32_bits() -> None:
    assert tokens_of([0, 2**32 - 1]).itemsize == 4
    with pytest.raises(OverflowError):
        tokens_of([2**32])
