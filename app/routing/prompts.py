"""Prompts as rows of block keys: what the block index is asked for, without an engine's tokenizer.

A prompt is written down as bytes in the order in which engines see it (model, tools, instructions, items) and cut into
blocks of equal size; the key of a block is the hash of the block, seeded with the key before it. Two prompts that begin
alike therefore share their first keys, and a key names the whole prefix up to its block.

A server that keeps conversations need not hash them again: the keys are remembered under the response that the turn
belongs to, and a turn that goes on from there hashes what is new. That a prompt goes on from a remembered one is
checked by its head, the number of items and the last of them; what is remembered is never changed by anyone else,
because a stored item never is.

How many bytes a token has depends on the model and the language; it is learned from what engines count.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence

import msgspec
import xxhash
from msgspec import Struct

from app.routing.placer import Prompt
from app.turn.items import Item
from app.turn.request import TurnRequest

_BYTES_A_TOKEN = 4.0
_WEIGHT = 0.1
# Below this many tokens the chat template's own words count too much.
_SHORT_TOKENS = 64

_encode = msgspec.json.Encoder().encode


class Written(Struct, frozen=True, gc=False):
    """A prompt that was hashed: `keys` of its whole blocks, and the `rest` that is no whole block yet."""

    head: int
    count: int
    last: Item | None
    keys: array[int]
    rest: bytes
    size: int


class PromptBook:
    """Reads prompts, and remembers those of at most `most_keys` blocks in all. `block_bytes` is the size of a block."""

    def __init__(self, *, block_bytes: int = 256, most_keys: int = 4_000_000) -> None:
        self._block = block_bytes
        self._most = most_keys
        self._known: OrderedDict[str, Written] = OrderedDict()
        self._kept = 0
        self._scales: dict[str, float] = {}

    def __len__(self) -> int:
        """How many prompts are remembered."""
        return len(self._known)

    def read(self, request: TurnRequest, *, run: str | None = None, conversation: str | None = None) -> Prompt:
        """The prompt of a turn of response `run`, which goes on from response `conversation`."""
        head = _head(request)
        root = xxhash.xxh3_64_intdigest(head)
        known = self._find(run, root, request.items) or self._find(conversation, root, request.items)
        written = known or Written(root, 0, None, array("Q"), head, len(head))
        if known is None or known.count < len(request.items):
            written = _write(written, request.items, self._block)
        if run is not None:
            self._keep(run, written)
        scale = self._scales.get(request.model, _BYTES_A_TOKEN)
        return Prompt(
            keys=written.keys,
            tokens=int(written.size / scale),
            block_tokens=self._block / scale,
            size=written.size,
            known=len(known.keys) if known is not None else 0,
            short=0 if written.keys else xxhash.xxh3_64_intdigest(written.rest),
        )

    def counted(self, model: str, prompt: Prompt, tokens: int) -> None:
        """The engine counted `tokens` in the prompt."""
        if tokens < _SHORT_TOKENS or not prompt.size:
            return
        scale = self._scales.get(model, _BYTES_A_TOKEN)
        self._scales[model] = scale + _WEIGHT * (min(max(prompt.size / tokens, 1.0), 16.0) - scale)

    def _find(self, identity: str | None, root: int, items: Sequence[Item]) -> Written | None:
        known = self._known.get(identity) if identity is not None else None
        if known is None or identity is None or known.head != root or known.count > len(items):
            return None
        if known.count and items[known.count - 1] != known.last:
            return None
        self._known.move_to_end(identity)
        return known

    def _keep(self, run: str, written: Written) -> None:
        before = self._known.pop(run, None)
        self._kept += len(written.keys) - (len(before.keys) if before is not None else 0)
        self._known[run] = written
        while self._kept > self._most and len(self._known) > 1:
            self._kept -= len(self._known.popitem(last=False)[1].keys)


def _head(request: TurnRequest) -> bytes:
    """What comes before the items; turns that differ in it share nothing at the engine."""
    return _encode((request.model, request.extra.get("cache_salt"), request.tools, request.instructions))


def _write(known: Written, items: Sequence[Item], block: int) -> Written:
    """The prompt of all `items`, of which the first ones are `known`."""
    new = b"".join(map(_encode, items[known.count :]))
    text = memoryview(known.rest + new)
    # A prompt's first key has no parent; the model's name is in the block itself.
    key, keys = known.keys[-1] if known.keys else 0, array("Q")
    digest, append = xxhash.xxh3_64_intdigest, keys.append
    whole = len(text) - len(text) % block
    for start in range(0, whole, block):
        key = digest(text[start : start + block], key)
        append(key)
    last = items[-1] if items else None
    return Written(known.head, len(items), last, known.keys + keys, bytes(text[whole:]), known.size + len(new))
