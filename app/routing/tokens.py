"""Keys of prompts whose tokens are known: the same for what a turn will ask and for what an engine says it holds.

Tokens are hashed in steps of 16, each step's key seeded with the one before, and every fourth key goes into the index:
a key for 64 tokens is fine enough for placing turns and takes a quarter of the memory. Engines' blocks may be of any
size; a step whose tokens come in several blocks is complete with the last of them.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

import xxhash
from msgspec import Struct

STEP = 16
STRIDE = 4
GRANULE = STEP * STRIDE

_digest = xxhash.xxh3_64_intdigest


class At(Struct, frozen=True, gc=False):
    """How far a chain went: the key of its last whole step, how many steps that is, and the tokens behind it."""

    key: int = 0
    steps: int = 0
    rest: bytes = b""


ROOT = At()


def as_bytes(tokens: Sequence[int]) -> bytes:
    """Token ids as little-endian numbers of four bytes."""
    if isinstance(tokens, list):
        packed = array("I")
        packed.fromlist(tokens)
    else:
        packed = tokens if isinstance(tokens, array) and tokens.typecode == "I" else array("I", tokens)
    if sys.byteorder == "big":
        packed = array("I", packed)
        packed.byteswap()
    return packed.tobytes()


def salted(at: At, salt: bytes) -> At:
    """The chain as it goes on for who has another salt."""
    return At(_digest(salt, at.key), at.steps, at.rest) if salt else at


def further(at: At, data: bytes, keys: list[int]) -> At:
    """The chain `at` with the tokens `data` behind it; keys of granules that became whole are appended to `keys`."""
    key, steps, size = at.key, at.steps, STEP * 4
    text = at.rest + data if at.rest else data
    whole = len(text) - len(text) % size
    digest = _digest
    for start in range(0, whole, size):
        key = digest(text[start : start + size], key)
        steps += 1
        if not steps % STRIDE:
            keys.append(key)
    return At(key, steps, text[whole:])
