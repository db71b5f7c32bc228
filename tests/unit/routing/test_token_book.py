"""Prompts by their tokens get the keys that engines' blocks get, however much of them is known."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from app.responses.ports import RouteKey
from app.routing.token_prompts import TokenBook
from app.routing.tokens import GRANULE, ROOT, as_bytes, further, salted
from app.turn.request import TurnRequest

TURN = TurnRequest(model="m", items=())


def key(run: str | None = None, before: str | None = None) -> RouteKey:
    return RouteKey(tenant="t", model="m", run=run, conversation=before)


def keys_of(tokens: list[int]) -> list[int]:
    keys: list[int] = []
    further(ROOT, as_bytes(tokens), keys)
    return keys


def compact(tokens: list[int]) -> bytes:
    return msgspec.json.encode(tokens)


def spaced(tokens: list[int]) -> bytes:
    return json.dumps(tokens).encode()


TOKENS = st.lists(st.integers(0, 300), max_size=5 * GRANULE)


@given(TOKENS, st.integers(0, 5 * GRANULE), TOKENS, st.sampled_from([compact, spaced]))
def test_a_remembered_prompt_changes_no_key(first: list[int], shared: int, more: list[int], written) -> None:
    book, tokens = TokenBook(), first[:shared] + more
    assert book.read(key("resp_1"), TURN, written(first)) is not None
    for run in ("resp_2", "resp_1"):
        prompt = book.read(key(run, "resp_1"), TURN, written(tokens))
        assert prompt is not None
        event(f"known: {'nothing' if not prompt.known else 'all' if prompt.known == len(prompt.keys) else 'a part'}")
        assert (list(prompt.keys), prompt.tokens) == (keys_of(tokens), len(tokens))


def test_a_number_that_only_begins_like_the_known_one_is_another() -> None:
    book = TokenBook()
    ones = [1] * 4 * GRANULE
    for last in (1, 11):
        for more in ([], [5]):
            tokens = [*ones[:-1], last, *more]
            prompt = book.read(key("resp_1", "resp_1"), TURN, compact(tokens))
            assert prompt is not None
            assert list(prompt.keys) == keys_of(tokens)


def test_only_what_is_new_is_read() -> None:
    book, tokens = TokenBook(), list(range(10 * GRANULE))
    book.read(key("resp_1"), TURN, compact(tokens))
    assert book.read(key(before="resp_1"), TURN, compact(tokens)[:-1] + b',"no token"]') is None
    again = book.read(key(before="resp_1"), TURN, compact([*tokens, 7]))
    assert again is not None
    # The last granule is whole only with the very last token, which the list may yet make a longer number of.
    assert again.known == 9


@pytest.mark.parametrize("text", [b"null", b"{}", b'[1,"a"]', b"[1,-2]", b"[1,4294967296]", b"7", b"[[1]]", b'"[1]"'])
def test_what_is_no_list_of_tokens_is_no_prompt(text: bytes) -> None:
    assert TokenBook().read(key("resp_1"), TURN, text) is None


def test_salts_part_what_tokens_do_not() -> None:
    book, tokens = TokenBook(), list(range(3 * GRANULE))
    request = TurnRequest(model="m", items=(), extra={"cache_salt": msgspec.Raw(b'"s"')})
    for turn in (TURN, request):
        prompt = book.read(key("resp_1", "resp_1"), turn, compact(tokens))
        assert prompt is not None
        assert prompt.known == 0
    salty: list[int] = []
    further(salted(ROOT, msgspec.msgpack.encode(["s"])), as_bytes(tokens), salty)
    assert list(prompt.keys) == salty


def test_remembers_no_more_than_it_may() -> None:
    book = TokenBook(most_keys=10)
    texts = [compact([number] * 5 * GRANULE) for number in range(5)]
    for number, text in enumerate(texts):
        book.read(key(f"resp_{number}"), TURN, text)
    known = [book.read(key(before=f"resp_{number}"), TURN, text) for number, text in enumerate(texts)]
    assert [prompt.known for prompt in known if prompt] == [0, 0, 0, 4, 4]


def test_a_prompt_of_no_whole_block_is_told_from_others_however_much_of_it_is_known() -> None:
    book, tokens = TokenBook(), list(range(GRANULE - 10))
    reads = [
        book.read(key("resp_1"), TURN, compact(each)) for each in (tokens, tokens, [*tokens[:-1], 9], [*tokens, 9])
    ]
    shorts = [prompt.short for prompt in reads if prompt]
    assert shorts[0] == shorts[1] != 0
    assert len(set(shorts)) == 3
