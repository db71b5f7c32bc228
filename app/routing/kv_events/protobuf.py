"""As much of the protobuf wire format as reading a message takes. Pure.

A message is a row of fields, each a number, a wire type and a value; what the numbers mean is for the caller to know.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

# A varint or fixed-width number as it stands there, unsigned, or the bytes of a string, a message or packed numbers.
Value: TypeAlias = int | memoryview

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_BITS = 70


class Malformed(Exception):
    """The bytes are no message."""


def fields(data: bytes | memoryview) -> Iterator[tuple[int, Value]]:
    """The fields of a message in order. Raises `Malformed`."""
    view, at = memoryview(data), 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        value: Value
        match kind:
            case _ if kind == _VARINT:
                value, at = _varint(view, at)
            case _ if kind == _BYTES:
                size, at = _varint(view, at)
                value, at = _piece(view, at, size), at + size
            case _ if kind == _FIXED64:
                value, at = int.from_bytes(_piece(view, at, 8), "little"), at + 8
            case _ if kind == _FIXED32:
                value, at = int.from_bytes(_piece(view, at, 4), "little"), at + 4
            case _:
                raise Malformed(f"wire type {kind}")
        yield number, value


def numbers(value: Value) -> list[int]:
    """The values of a repeated number in one field: packed, or the one that is there. Raises `Malformed`."""
    if isinstance(value, int):
        return [value]
    found: list[int] = []
    number = shift = 0
    for byte in value:
        if byte < 0x80:
            found.append(number | byte << shift)
            number = shift = 0
        else:
            number |= (byte & 0x7F) << shift
            shift += 7
    if shift:
        raise Malformed("a number is cut")
    return found


def integer(value: Value) -> int:
    """The value of a field that is a number. Raises `Malformed`."""
    if isinstance(value, int):
        return value
    raise Malformed("bytes where a number belongs")


def piece(value: Value) -> memoryview:
    """The value of a field that is a message, a string or bytes. Raises `Malformed`."""
    if isinstance(value, int):
        raise Malformed("a number where bytes belong")
    return value


def _piece(view: memoryview, at: int, size: int) -> memoryview:
    if at + size > len(view):
        raise Malformed("a field is cut")
    return view[at : at + size]


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(view) and shift < _MOST_BITS:
        byte = view[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise Malformed("a number is cut or too long")
