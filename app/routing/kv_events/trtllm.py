"""TensorRT-LLM's events: JSON that is fetched, and is gone once it was fetched, so only one may ask.

Each event has a number; one that is missing was lost in the engine's buffer. An engine begins with `created`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from app.routing.kv_events.words import Cleared, Removed, Stored, Told, Undecodable


class Numbered(Struct, frozen=True, gc=False):
    """An event and its number."""

    number: int
    told: tuple[Told, ...]


class Decoder:
    """Decodes the answers of one engine to POST /kv_cache_events.

    A model whose layers look back differently far has a cache for each such window, and an event says which it is of.
    What a prompt needs is told by the widest; which that is shows when it is first told of.
    """

    def __init__(self) -> None:
        self._widest = 0

    def __call__(self, body: bytes) -> list[Numbered]:
        """The events of an answer, in order. Raises `Undecodable`."""
        try:
            events: Sequence[Mapping[str, Any]] = msgspec.json.decode(body)
            windows = [int(event.get("window_size") or 0) for event in events]
            widest = max(windows, default=0)
            # What was told of until now was of a narrower one.
            void: tuple[Told, ...] = (Cleared(),) if 0 < self._widest < widest else ()
            self._widest = max(self._widest, widest)
            numbered: list[Numbered] = []
            for event, window in zip(events, windows, strict=True):
                told = _event(event["data"]) if window == self._widest else None
                numbered.append(Numbered(int(event["event_id"]), void if told is None else (*void, told)))
                void = ()
        except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise Undecodable(f"not a list of cache events: {error}") from error
        return numbered


def _event(data: Mapping[str, Any]) -> Told | None:
    match data["type"]:
        case "stored":
            return _stored(data)
        case "removed":
            return Removed(data["block_hashes"])
        case "created":
            return Cleared()
        case _:
            # `updated`: a block moved between memory and disk, and is as good as it was.
            return None


def _stored(data: Mapping[str, Any]) -> Stored | None:
    blocks: Sequence[Mapping[str, Any]] = data["blocks"]
    if not blocks:
        return None
    tokens = [[int(token["token_id"]) for token in block["tokens"]] for block in blocks]
    size = len(tokens[0])
    # The last block of a prompt may not be full; nobody else can use it.
    full = [index for index, each in enumerate(tokens) if len(each) == size]
    salts = [_salt(blocks[index]) for index in full]
    return Stored(
        [blocks[index]["block_hash"] for index in full],
        data.get("parent_hash"),
        [token for index in full for token in tokens[index]],
        size,
        salts if any(salts) else (),
    )


def _salt(block: Mapping[str, Any]) -> bytes:
    extra = [token.get("token_extra_id", 0) for token in block["tokens"]]
    adapter = block.get("lora_id")
    return repr((adapter, extra)).encode() if adapter is not None or any(extra) else b""
