"""Content parts: from the wire, and of a tool's result back to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from app.dialects.openai_responses.wire import FilePart, Head, ImagePart, RefusalPart, TextPart
from app.turn.items import File, Image, OpaquePart, Part, Refusal, Text

_head = msgspec.json.Decoder(Head)
_encode = msgspec.json.Encoder().encode


def read_parts(raws: Sequence[Raw]) -> tuple[Part, ...]:
    """Parts as the vocabulary has them; those of an unknown type stay as they are."""
    return tuple(map(_part, raws))


def _part(raw: Raw) -> Part:
    kind = _head.decode(raw).type or ""
    known = _PARTS.get(kind)
    if known is None:
        return OpaquePart(kind, raw)
    decoder, reader = known
    return reader(decoder.decode(raw)) or OpaquePart(kind, raw)


def _text(wire: TextPart) -> Part:
    return Text(wire.text)


def _refusal(wire: RefusalPart) -> Part:
    return Refusal(wire.refusal)


def _image(wire: ImagePart) -> Part | None:
    return None if wire.image_url is None else Image(wire.image_url, wire.detail)


def _file(wire: FilePart) -> Part:
    return File(data=wire.file_data, url=wire.file_url, file_id=wire.file_id, filename=wire.filename)


def part_to_wire(part: Part) -> Raw:
    """A part of a tool's result as an input part."""
    match part:
        case Text() | Refusal():
            return Raw(_encode({"type": "input_text", "text": part.text}))
        case Image():
            detail = {"detail": part.detail or "auto"}
            return Raw(_encode({"type": "input_image", "image_url": part.url, **detail}))
        case File():
            fields = {
                "file_data": part.data,
                "file_url": part.url,
                "file_id": part.file_id,
                "filename": part.filename,
            }
            return Raw(_encode({"type": "input_file", **{key: each for key, each in fields.items() if each}}))
        case OpaquePart():
            return part.raw


_PARTS: dict[str, tuple[msgspec.json.Decoder[Any], Callable[[Any], Part | None]]] = {
    "input_text": (msgspec.json.Decoder(TextPart), _text),
    "output_text": (msgspec.json.Decoder(TextPart), _text),
    "text": (msgspec.json.Decoder(TextPart), _text),
    "refusal": (msgspec.json.Decoder(RefusalPart), _refusal),
    "input_image": (msgspec.json.Decoder(ImagePart), _image),
    "input_file": (msgspec.json.Decoder(FilePart), _file),
}
