"""Tokens without a vocabulary: four bytes of UTF-8 are one token, so text and ids are the same thing seen twice.

A token id is the four bytes read as a little-endian number. UTF-8 never holds a byte above 0xF7, so ids whose highest
byte is 0xF9 to 0xFB can mark the one to three bytes at the end of a text, and ids from 0xFF000000 up the places where
messages and calls begin and end. English has about four bytes to a token in real tokenizers too; and since a longer
text starts with the tokens of a shorter one, prefixes of conversations are prefixes of token lists, as caches need.
"""

from __future__ import annotations

import codecs
import sys
from array import array
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Literal, TypeAlias

Tokens: TypeAlias = "array[int]"

_TAIL = 0xF8
_MARKS = 0xFF000000


class Mark(IntEnum):
    """Tokens that are no text."""

    SYSTEM = _MARKS + 1
    USER = _MARKS + 2
    ASSISTANT = _MARKS + 3
    TOOL = _MARKS + 4
    OTHER = _MARKS + 5
    TOOLS = _MARKS + 6
    END = _MARKS + 7
    CALL = _MARKS + 8
    ARGUMENTS = _MARKS + 9
    THINK = _MARKS + 10
    THOUGHT = _MARKS + 11


def tokens_of(ids: Iterable[int] = ()) -> Tokens:
    """Ids as tokens: 32 bits each. Raises `OverflowError` for an id that needs more."""
    return array("I", ids)


def encode(text: str) -> Tokens:
    """The tokens of `text`: one for every four bytes, and one for what is left."""
    data = text.encode("utf-8", "replace")
    whole = len(data) & ~3
    ids = array("I")
    ids.frombytes(data[:whole])
    if sys.byteorder == "big":
        ids.byteswap()
    if tail := data[whole:]:
        ids.append((_TAIL + len(tail) << 24) | int.from_bytes(tail, "little"))
    return ids


def raw_bytes(token: int) -> bytes:
    """The bytes a token stands for; none for marks."""
    highest = token >> 24
    if highest < _TAIL:
        return token.to_bytes(4, "little")
    size = highest - _TAIL
    return (token & 0xFFFFFF).to_bytes(3, "little")[:size] if size <= 3 else b""


def decode(ids: Sequence[int], errors: Literal["replace", "ignore"] = "replace") -> str:
    """The text of tokens. What is not UTF-8, such as a character cut in two, is replaced by U+FFFD or left out."""
    return b"".join(map(raw_bytes, ids)).decode("utf-8", errors)


def pieces(text: str, ids: Sequence[int]) -> list[str]:
    """What each of the tokens of `text` adds to the text seen so far, as a streaming engine tells it.

    A character that is spread over two tokens comes with the second; the pieces joined are the text, or its beginning
    when `ids` are only the first tokens.
    """
    if text.isascii():
        return [text[start : start + 4] for start in range(0, 4 * len(ids), 4)]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [decoder.decode(raw_bytes(token)) for token in ids]
