"""Texts as completions and embeddings take them: a string, the ids of its tokens, or a list of either."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Struct

from app.dialects.openai_responses.faults import read
from app.simulator.tokens import Tokens, decode, encode, tokens_of
from app.turn.errors import InvalidRequest

_Given: TypeAlias = str | list[str | int | list[int]]
_given: msgspec.json.Decoder[_Given] = msgspec.json.Decoder(_Given)


class Input(Struct, frozen=True):
    """A text and its tokens."""

    text: str
    tokens: Tokens


def inputs(raw: msgspec.Raw, param: str) -> list[Input]:
    """Every text that was given. Raises `InvalidRequest` naming `param`."""
    given = read(_given, raw, param)
    if isinstance(given, str):
        return [Input(given, encode(given))]
    if not given:
        raise InvalidRequest(f"There is nothing in '{param}'.", param=param)
    numbers = [each for each in given if isinstance(each, int)]
    if not numbers:
        return [_input(each, param) for each in given if not isinstance(each, int)]
    if len(numbers) < len(given):
        raise InvalidRequest(f"'{param}' mixes token ids with other things.", param=param)
    return [_input(numbers, param)]


def tokens_from(ids: list[int], param: str) -> Tokens:
    """Ids as tokens. Raises `InvalidRequest` naming `param`."""
    try:
        return tokens_of(ids)
    except OverflowError:
        raise InvalidRequest("A token id is from 0 to 4294967295.", param=param) from None


def _input(given: str | list[int], param: str) -> Input:
    if isinstance(given, str):
        return Input(given, encode(given))
    tokens = tokens_from(given, param)
    return Input(decode(tokens), tokens)
