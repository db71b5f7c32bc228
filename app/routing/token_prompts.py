"""Prompts by their tokens: exact where engines tell what they hold, and dear, for somebody has to tokenise.

The engine does it, with its own tokenizer and chat template, so its keys and ours are made of the same tokens. The keys
of a conversation are remembered; that the prompt goes on from there is seen with one hash over what it was.
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
from app.routing.tokens import GRANULE, ROOT, At, as_bytes, further, salted
from app.turn.request import TurnRequest


class Known(Struct, frozen=True, gc=False):
    """How far a prompt went: its bytes in whole steps, a hash over them, where its chain is, and its keys."""

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

    def read(self, key: RouteKey, request: TurnRequest, tokens: Sequence[int], adapter: bytes = b"") -> Prompt:
        """The prompt of a turn whose tokens these are, for a model adapted by what `adapter` names."""
        data = as_bytes(tokens)
        start = salted(salted(ROOT, adapter), _salt(request))
        known = self._find((key.run, key.conversation), start.key, data)
        keys: list[int] = [] if known is None else known.keys.tolist()
        at, done = (start, 0) if known is None else (known.at, known.length)
        at = further(at, data[done:], keys)
        if key.run is not None:
            whole = len(data) - len(at.rest)
            digest = xxhash.xxh3_64_intdigest(memoryview(data)[:whole], start.key)
            self._keep(key.run, Known(whole, digest, At(at.key, at.steps), array("Q", keys)))
        short = 0 if keys else xxhash.xxh3_64_intdigest(data, start.key)
        return Prompt(keys, len(tokens), GRANULE, len(data), 0 if known is None else len(known.keys), short)

    def _find(self, names: Sequence[str | None], start: int, data: bytes) -> Known | None:
        for name in names:
            known = None if name is None else self._known.get(name)
            if known is None or known.length > len(data):
                continue
            if xxhash.xxh3_64_intdigest(memoryview(data)[: known.length], start) == known.digest:
                return known
        return None

    def _keep(self, name: str, known: Known) -> None:
        before = self._known.pop(name, None)
        self._kept += len(known.keys) - (0 if before is None else len(before.keys))
        self._known[name] = known
        while self._kept > self._most and len(self._known) > 1:
            self._kept -= len(self._known.popitem(last=False)[1].keys)


def _salt(request: TurnRequest) -> bytes:
    """The turn's cache salt as an engine tells of it: among the extra keys of a prompt's first block."""
    salt = request.extra.get("cache_salt")
    return b"" if salt is None else msgspec.msgpack.encode([msgspec.json.decode(salt)])
