"""Prompts by their tokens: exact where engines tell what they hold, and dear, for somebody has to tokenise.

The engine does it, with its own tokenizer and chat template, so its keys and ours are made of the same tokens. The keys
of a conversation are remembered. That a prompt goes on from there is seen with one hash over the list of tokens as it
was written; only the tokens behind are read at all.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence

import msgspec
import xxhash
from msgspec import Struct

from app.responses.ports import RouteKey
from app.routing.placer import Prompt
from app.routing.tokens import GRANULE, ROOT, STEP, At, as_bytes, further, salted
from app.turn.request import TurnRequest

_tokens = msgspec.json.Decoder(list[int]).decode


class Known(Struct, frozen=True, gc=False):
    """A prompt as far as its last whole step and the comma behind: the length of that text, a hash over it, where its
    chain is, and its keys."""

    length: int
    digest: int
    at: At
    keys: array[int]


class TokenBook:
    """Remembers prompts of at most `most_keys` keys in all."""

    def __init__(self, most_keys: int = 4_000_000) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._most = most_keys
        self._kept = 0

    def read(self, key: RouteKey, request: TurnRequest, text: bytes, adapter: bytes = b"") -> Prompt | None:
        """The prompt of a turn whose tokens these are, a list in JSON; None where it is none.

        `adapter` names what the model was adapted by.
        """
        start = salted(salted(ROOT, adapter), _salt(request))
        known, digest = self._find((key.run, key.conversation), start.key, text)
        begun = known or Known(len(b"["), 0, start, array("Q"))
        try:
            tokens = _tokens(b"[" + text[begun.length :])
            data = as_bytes(tokens)
        except (msgspec.DecodeError, OverflowError):
            return None
        # With a comma behind it, a text that begins alike has the same numbers and not just the same digits.
        whole = max(len(tokens) - 1, 0) // STEP * STEP
        new, rest = list[int](), list[int]()
        at = further(begun.at, data[: 4 * whole], new)
        further(at, data[4 * whole :], rest)
        keys = begun.keys + array("Q", new)
        if key.run is not None:
            length = _before(text, len(tokens) - whole)
            digest.update(memoryview(text)[begun.length : length])
            self._keep(key.run, Known(length, digest.intdigest(), at, keys))
        count = at.steps * STEP + len(tokens) - whole
        short = 0 if keys or rest else xxhash.xxh3_64_intdigest(data[4 * whole :], at.key)
        return Prompt(keys + array("Q", rest) if rest else keys, count, GRANULE, known=len(begun.keys), short=short)

    def _find(self, names: Sequence[str | None], start: int, text: bytes) -> tuple[Known | None, xxhash.xxh3_64]:
        """What is known of the prompt, and the hash of so much of its text."""
        for name in names:
            known = None if name is None else self._known.get(name)
            if known is None or known.length > len(text):
                continue
            digest = xxhash.xxh3_64(memoryview(text)[: known.length], start)
            if digest.intdigest() == known.digest:
                return known, digest
        return None, xxhash.xxh3_64(b"[", start)

    def _keep(self, name: str, known: Known) -> None:
        before = self._known.pop(name, None)
        self._kept += len(known.keys) - (0 if before is None else len(before.keys))
        self._known[name] = known
        while self._kept > self._most and len(self._known) > 1:
            self._kept -= len(self._known.popitem(last=False)[1].keys)


def _before(text: bytes, count: int) -> int:
    """Where the last `count` numbers of a list begin, behind a comma or the bracket."""
    end = len(text)
    for _ in range(count):
        end = text.rfind(b",", 1, end)
    return max(end + 1, 1)


def _salt(request: TurnRequest) -> bytes:
    """The turn's cache salt as an engine tells of it: among the extra keys of a prompt's first block."""
    salt = request.extra.get("cache_salt")
    return b"" if salt is None else msgspec.msgpack.encode([msgspec.json.decode(salt)])
