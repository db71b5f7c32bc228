"""What a client may set about a hosted tool. The MCP server that plays the tool is told, and heeds what it can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from app.dialects.openai_responses.faults import read, unknown
from app.dialects.openai_responses.wire import NULL
from app.turn.items import ToolKind

_Object = dict[str, Any]


class _WebSearch(Struct, frozen=True):
    filters: _Object | None = None
    user_location: _Object | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None
    search_content_types: list[str] | None = None
    external_web_access: bool | None = None


class _FileSearch(Struct, frozen=True):
    vector_store_ids: list[str] | None = None
    max_num_results: Annotated[int, Meta(ge=1, le=50)] | None = None
    filters: _Object | None = None
    ranking_options: _Object | None = None


class _CodeInterpreter(Struct, frozen=True):
    container: str | _Object | None = None


class _ImageGeneration(Struct, frozen=True):
    action: str | None = None
    background: str | None = None
    complexity: str | None = None
    frame_count: int | None = None
    frame_duration_ms: int | None = None
    input_fidelity: str | None = None
    input_image_mask: _Object | None = None
    model: str | None = None
    moderation: str | None = None
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None = None
    output_format: str | None = None
    partial_images: Annotated[int, Meta(ge=0, le=3)] | None = None
    quality: str | None = None
    size: str | None = None
    svg: _Object | None = None


_OPTIONS: Mapping[ToolKind, type[Struct]] = {
    "web_search": _WebSearch,
    "file_search": _FileSearch,
    "code_interpreter": _CodeInterpreter,
    "image_generation": _ImageGeneration,
}
_DECODERS: Mapping[ToolKind, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(options) for kind, options in _OPTIONS.items()
}
# What says which tool it is, and who may call it.
_OTHERS = frozenset(("type", "allowed_callers"))

_members = msgspec.json.Decoder(dict[str, Raw])


def read_options(kind: ToolKind, raw: Raw, path: str) -> dict[str, Raw]:
    """The options of a hosted tool that is asked for at `path`; what is null is not set.

    Raises `InvalidRequest` with the path of an option that the tool does not have, or that cannot be what it is.
    """
    members = read(_members, raw, path)
    for name in members:
        if name not in _OTHERS and name not in _OPTIONS[kind].__struct_fields__:
            raise unknown(f"{path}.{name}")
    read(_DECODERS[kind], raw, path)
    return {name: given.copy() for name, given in members.items() if name not in _OTHERS and given != NULL}
