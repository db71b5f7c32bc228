"""The events of engines behind SMG's gRPC servicers: `SubscribeKvEvents`, whichever engine it is. Pure.

Source: smg, crates/grpc_client/proto/common.proto, package smg.grpc.common. Hashes are 64-bit numbers there; they are
names here, so whether they have a sign does not matter. A hybrid model's groups of layers are told of apart, and only
full attention says what a prompt needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from app.routing.kv_events.protobuf import Malformed, Value, fields, integer, numbers, piece
from app.routing.kv_events.words import FULL_ATTENTION, Batch, BlockHash, Cleared, Removed, Stored, Told, Undecodable

_STORE, _REMOVE, _CLEAR = 1, 2, 3


class Numbered(Struct, frozen=True, gc=False):
    """A batch and its number, which counts up in each rank."""

    number: int
    batch: Batch


def request(last: int) -> bytes:
    """A SubscribeKvEventsRequest: go on after batch `last`; 0 is what happens from now on."""
    if not last:
        return b""
    encoded, left = bytearray(b"\x08"), last
    while left > 0x7F:
        encoded.append(left & 0x7F | 0x80)
        left >>= 7
    encoded.append(left)
    return bytes(encoded)


def decode(payload: bytes) -> Numbered:
    """The KvEventBatch in a message. Raises `Undecodable`."""
    number, rank, told = 0, 0, list[Told]()
    try:
        for field, value in fields(payload):
            match field:
                case 1:
                    number = integer(value)
                case 3:
                    told += _event(piece(value))
                case 4:
                    rank = integer(value)
                case 6:
                    told += _group_event(piece(value))
                case _:
                    pass
    except (Malformed, UnicodeDecodeError) as error:
        raise Undecodable(f"not a batch of cache events: {error}") from error
    return Numbered(number, Batch(told, rank))


def _event(data: memoryview) -> list[Told]:
    for field, value in fields(data):
        match field:
            case 2:
                return _stored(piece(value))
            case 3:
                return [_removed(piece(value))]
            case 4:
                return [Cleared()]
            case _:
                pass
    return []


class _Block(Struct):
    name: int = 0
    tokens: list[int] = []
    size: int = 0
    adapter: int | None = None
    level: int = 0


def _block(data: memoryview) -> _Block:
    block = _Block()
    for field, value in fields(data):
        match field:
            case 1:
                block.name = integer(value)
            case 2:
                block.tokens += numbers(value)
            case 3:
                block.size = integer(value)
            case 4:
                block.adapter = integer(value)
            case 5:
                block.level = integer(value)
            case _:
                pass
    return block


def _stored(data: memoryview) -> list[Told]:
    blocks, parent = list[_Block](), None
    for field, value in fields(data):
        if field == 1:
            blocks.append(_block(piece(value)))
        elif field == 2:
            parent = integer(value)
    # Where one is no whole block, nothing behind it can be named.
    size = blocks[0].size if blocks else 0
    whole = next((at for at, each in enumerate(blocks) if not len(each.tokens) == each.size == size), len(blocks))
    if not size or not whole:
        return []
    blocks = blocks[:whole]
    adapter = blocks[0].adapter
    salts = [str(adapter).encode()] * whole if adapter else ()
    tokens = [token for each in blocks for token in each.tokens]
    return [Stored([each.name for each in blocks], parent, tokens, size, salts, _medium(blocks[0].level))]


def _removed(data: memoryview) -> Told:
    names, level = list[BlockHash](), 0
    for field, value in fields(data):
        if field == 1:
            names += numbers(value)
        elif field == 2:
            level = integer(value)
    return Removed(names, _medium(level))


def _medium(level: int) -> str:
    return "GPU" if level == 0 else "CPU"


class _Group(Struct):
    operation: int = 0
    names: list[BlockHash] = []
    parent: bytes = b""
    tokens: list[int] = []
    size: int = 0
    kind: str = ""
    matchable: bool = False


def _group(data: memoryview) -> _Group:
    group = _Group()
    for field, value in fields(data):
        _set(group, field, value)
    return group


def _set(group: _Group, field: int, value: Value) -> None:
    match field:
        case 1:
            group.operation = integer(value)
        case 3:
            group.names.append(bytes(piece(value)))
        case 4:
            group.parent = bytes(piece(value))
        case 5:
            group.tokens += numbers(value)
        case 6:
            group.size = integer(value)
        case 7:
            group.kind = str(piece(value), "utf-8")
        case 9:
            group.matchable = bool(integer(value))
        case _:
            pass


def _group_event(data: memoryview) -> Sequence[Told]:
    group = _group(data)
    if group.kind and group.kind not in FULL_ATTENTION:
        return ()
    match group.operation:
        case _ if group.operation == _CLEAR:
            return (Cleared(),)
        case _ if group.operation == _REMOVE:
            return (Removed(group.names),)
        case _ if group.operation == _STORE and group.matchable and group.size:
            if len(group.tokens) != len(group.names) * group.size:
                return ()
            return (Stored(group.names, group.parent or None, group.tokens, group.size),)
        case _:
            return ()
