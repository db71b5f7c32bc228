"""What a client that reads an item may ask to have with it, made of what is kept of the item.

A token that is sealed again is the same token, and a search's pages are in its result: so an item that is read with
something looks as it would if it had been made with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from app.dialects.openai_responses.events import encode
from app.dialects.openai_responses.kinds import kind_of
from app.dialects.openai_responses.output_hosted import HOSTINGS, given_in
from app.dialects.openai_responses.sealed import Seal, Sealed
from app.dialects.openai_responses.wire import HostedCallItem, ReasoningItem
from app.turn.items import StoredItem, ToolKind

ENCRYPTED = "reasoning.encrypted_content"
_HOSTED: dict[str, tuple[str, ToolKind]] = {
    "web_search_call": ("web_search_call.action.sources", "web_search"),
    "file_search_call": ("file_search_call.results", "file_search"),
    "code_interpreter_call": ("code_interpreter_call.outputs", "code_interpreter"),
}
# What may be asked for and is not shown without; all else is always there, or was never kept.
ADDED = frozenset((ENCRYPTED, *(include for include, _ in _HOSTED.values())))

_fields = msgspec.json.Decoder(dict[str, Raw])
_reasoning = msgspec.json.Decoder(ReasoningItem)
_hosted = msgspec.json.Decoder(HostedCallItem)


def with_included(item: StoredItem, include: Collection[str], seal: Seal) -> StoredItem:
    """The item with what `include` names. Calls of hosted tools have it if this gateway made them."""
    kind = kind_of(item) or ""
    added: Mapping[str, Any] = {}
    if kind == "reasoning" and ENCRYPTED in include:
        added = _encrypted(_reasoning.decode(item.raw), seal)
    elif kind in _HOSTED and _HOSTED[kind][0] in include:
        added = _of_result(_hosted.decode(item.raw), *_HOSTED[kind])
    return StoredItem(item.id, Raw(encode({**_fields.decode(item.raw), **added}))) if added else item


def _encrypted(item: ReasoningItem, seal: Seal) -> dict[str, Any]:
    thoughts = "".join(part.text for part in item.content or ())
    if not thoughts or item.encrypted_content:
        return {}
    return {"encrypted_content": seal(Sealed("reasoning", thoughts))}


def _of_result(item: HostedCallItem, include: str, kind: ToolKind) -> dict[str, Any]:
    if item.model_call_id is None or item.status != "completed" or item.output is None:
        return {}
    return HOSTINGS[kind].fields(given_in(item.arguments or ""), item.output, (include,))
