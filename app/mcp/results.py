"""What a tool returned, as the text a model reads. Pure; content blocks arrive as plain JSON objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec


def as_text(content: Sequence[Mapping[str, Any]], structured: object, max_bytes: int) -> str:
    """Text blocks as they are, everything else as one line of JSON that says what it is, in the server's order.

    `structured` (the result's structuredContent) speaks only when there is no text, since servers repeat it there.
    More than `max_bytes` of UTF-8 is cut, with a last line that says so.
    """
    pieces = list(_pieces(content))
    if structured is not None and not any(block.get("type") == "text" for block in content):
        pieces.insert(0, _json(structured))
    return cut("\n".join(pieces), max_bytes)


def picture(content: Sequence[Mapping[str, Any]]) -> str | None:
    """The first image among the blocks, as base64; None when there is none. It is not cut: half of it is none."""
    for block in content:
        match block:
            case {"type": "image", "data": str() as data} if data:
                return data
            case {"type": "resource", "resource": {"blob": str() as data, "mimeType": str() as kind}}:
                if data and kind.startswith("image/"):
                    return data
            case _:
                pass
    return None


def cut(text: str, max_bytes: int) -> str:
    """`text`, or its first `max_bytes` and a line that says how much is missing."""
    # A character has at most four bytes: most texts need no encoding to know that they fit.
    if len(text) * 4 <= max_bytes:
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text
    kept = data[:max_bytes].decode("utf-8", "ignore")
    return f"{kept}\n[cut: the tool returned {len(data)} bytes, only the first {max_bytes} are shown]"


def _pieces(content: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for block in content:
        match block:
            case {"type": "text", "text": str() as text}:
                yield text
            case {"type": "image" | "audio" as kind, "data": str() as data}:
                yield _json({"type": kind, "mime_type": block.get("mimeType"), "bytes": _decoded_size(data)})
            case {"type": "resource", "resource": {**resource}}:
                yield _json(_resource(resource))
            case _:
                known = ("type", "uri", "name", "title", "description", "mimeType", "size")
                yield _json({key: block[key] for key in known if key in block})


def _resource(resource: Mapping[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"type": "resource", "uri": resource.get("uri"), "mime_type": resource.get("mimeType")}
    if isinstance(text := resource.get("text"), str):
        return said | {"text": text}
    return said | {"bytes": _decoded_size(str(resource.get("blob", "")))}


def _decoded_size(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
