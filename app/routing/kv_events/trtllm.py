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
    told: Told | None


def decode(body: bytes) -> list[Numbered]:
    """The events of an answer to POST /kv_cache_events, in order. Raises `Undecodable`."""
    try:
        return [Numbered(int(event["event_id"]), _event(event["data"])) for event in msgspec.json.decode(body)]
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise Undecodable(f"not a list of cache events: {error}") from error


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
