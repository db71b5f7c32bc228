"""The types of stored items, told from their first bytes.

Items may be long, and one turn asks each of them several times what it is. They are written here, and nearly all begin
with their id and their type; the others are read from end to end.
"""

from __future__ import annotations

import re

import msgspec

from app.dialects.openai_responses.wire import Head
from app.turn.items import StoredItem

# No name stands twice in an item, since each was written from a dictionary: what comes later changes nothing.
_FIRST = re.compile(rb'\{"id":"[\w-]*","type":"(\w+)"[,}]')
_head = msgspec.json.Decoder(Head)


def kind_of(item: StoredItem) -> str | None:
    """The item's type; None for one that does not say."""
    found = _FIRST.match(item.raw)
    return _head.decode(item.raw).type if found is None else found[1].decode()
