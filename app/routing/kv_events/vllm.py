"""vLLM's messages: MessagePack of structs that are maps in newer versions and arrays in older ones.

Fields come and go with versions, so what is not known is passed over, in maps and at the end of arrays. A hybrid model
tells of several groups of layers for the same tokens; only full attention, however it is made, says what a prompt
needs. Which group that is a store says; a removal has only the group's number.

Source: vllm/distributed/kv_events.py and `KVCacheSpecKind` in vllm/v1/kv_cache_interface.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from app.routing.kv_events.words import FULL_ATTENTION, Batch, BlockHash, Cleared, Removed, Stored, Told, Undecodable

_STORED = (
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
)
_REMOVED = ("block_hashes", "medium", "group_idx")

_decode = msgspec.msgpack.Decoder().decode


def decode(payload: bytes) -> Batch:
    """The batch in a message. Raises `Undecodable`."""
    try:
        raw = _decode(payload)
        if isinstance(raw, Mapping):
            batch = cast("Mapping[str, Any]", raw)
            events, rank = batch["events"], batch.get("data_parallel_rank")
        else:
            listed = cast("Sequence[Any]", raw)
            events, rank = listed[1], listed[2] if len(listed) > 2 else None
        return Batch([told for event in events if (told := _event(event)) is not None], int(rank or 0))
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise Undecodable(f"not a batch of cache events: {error}") from error


def _event(raw: Any) -> Told | None:
    if isinstance(raw, Mapping):
        fields = cast("Mapping[str, Any]", raw)
        kind = fields["type"]
    else:
        kind = raw[0]
        names = _STORED if kind == "BlockStored" else _REMOVED
        fields = cast("Mapping[str, Any]", dict(zip(names, raw[1:], strict=False)))
    match kind:
        case "BlockStored":
            return _stored(fields)
        case "BlockRemoved":
            return Removed(_hashes(fields["block_hashes"]), fields.get("medium") or "GPU", _group(fields))
        case "AllBlocksCleared":
            return Cleared()
        case _:
            # A kind that a newer engine added.
            return None


def _stored(fields: Mapping[str, Any]) -> Stored | None:
    kind = fields.get("kv_cache_spec_kind")
    if kind is not None and kind not in FULL_ATTENTION:
        return None
    hashes, tokens, size = _hashes(fields["block_hashes"]), fields["token_ids"], int(fields["block_size"])
    if len(tokens) != len(hashes) * size:
        raise ValueError(f"{len(tokens)} tokens in {len(hashes)} blocks of {size}")
    return Stored(
        hashes,
        _hash(fields.get("parent_block_hash")),
        tokens,
        size,
        _salts(fields, len(hashes)),
        fields.get("medium") or "GPU",
        _group(fields),
        _adapter(fields),
    )


def _group(fields: Mapping[str, Any]) -> int | None:
    group = fields.get("group_idx")
    return None if group is None else int(group)


def _adapter(fields: Mapping[str, Any]) -> bytes:
    """The name of the adapter, or in older versions its number, which no client knows it by."""
    adapter = fields.get("lora_name") or fields.get("lora_id")
    return str(adapter).encode() if adapter else b""


def _salts(fields: Mapping[str, Any], count: int) -> Sequence[bytes]:
    """What distinguishes blocks of equal tokens, but for the adapter, which is the first of each block's keys."""
    extra = fields.get("extra_keys")
    if extra is None:
        return ()
    if len(extra) != count:
        raise ValueError(f"{len(extra)} extra keys for {count} blocks")
    name = fields.get("lora_name")
    rest = [each[1:] if each and name and each[0] == name else each for each in extra]
    return [msgspec.msgpack.encode(each) if each else b"" for each in rest]


def _hashes(raw: Sequence[Any]) -> Sequence[BlockHash]:
    for each in raw:
        if not isinstance(each, int | bytes):
            raise TypeError(f"a block hash is a {type(each).__name__}")
    return raw


def _hash(raw: Any) -> BlockHash | None:
    return None if raw is None else _hashes([raw])[0]
