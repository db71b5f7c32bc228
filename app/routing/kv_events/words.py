"""The vocabulary: what an engine can tell, whichever engine it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from msgspec import Struct

# Engines name blocks by numbers or by bytes.
BlockHash: TypeAlias = int | bytes


class Stored(Struct, frozen=True, gc=False):
    """Blocks came, one behind the other, the first behind `parent` (None: at the beginning of a prompt).

    `tokens` are those of all the blocks, `size` each. `salts` are what else the engine hashes, one for each block (the
    ids of images, a cache salt); empty means none. `medium` is where the blocks are. A hybrid model keeps the same
    blocks in several groups of layers, and `group` is which, where it says so. `adapter` names what the model was
    adapted by, for all of a prompt.
    """

    hashes: Sequence[BlockHash]
    parent: BlockHash | None
    tokens: Sequence[int]
    size: int
    salts: Sequence[bytes] = ()
    medium: str = "GPU"
    group: int | None = None
    adapter: bytes = b""


class Removed(Struct, frozen=True, gc=False):
    """Blocks went, of one group of layers where there are several."""

    hashes: Sequence[BlockHash]
    medium: str = "GPU"
    group: int | None = None


class Cleared(Struct, frozen=True, gc=False):
    """Nothing is held any more."""


# Groups of layers that need all of a prompt's blocks; of the others' a turn needs only the last, or none.
FULL_ATTENTION = frozenset(("full_attention", "mla_attention", "sink_full_attention"))

Told: TypeAlias = Stored | Removed | Cleared


class Batch(Struct, frozen=True, gc=False):
    """What happened in one step of an engine. `rank` is the data-parallel replica it happened in."""

    told: Sequence[Told]
    rank: int = 0


class Undecodable(Exception):
    """The message is none of this engine's."""
