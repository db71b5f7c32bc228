"""What a client has set about a hosted tool, on its way to the server that plays the tool.

An option is an argument where the tool has one of that name: it stands, whatever the model says, since it is the client
who set it. What the tool has no argument for goes beside the call, in its `_meta`, for servers that know this gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

# As arguments of a call, and beside it.
Placed: TypeAlias = tuple[dict[str, Any], dict[str, Any]]


class _Schema(Struct, frozen=True):
    properties: dict[str, Raw] = msgspec.field(default_factory=dict[str, Raw])


_schema = msgspec.json.Decoder(_Schema)


def placed(options: Mapping[str, Raw], parameters: Raw) -> Placed:
    """The options as a tool with this JSON Schema of its parameters takes them."""
    try:
        known = _schema.decode(parameters).properties
    except msgspec.ValidationError:
        known = dict[str, Raw]()
    inside, beside = dict[str, Any](), dict[str, Any]()
    for name, value in options.items():
        (inside if name in known else beside)[name] = msgspec.json.decode(value)
    return inside, beside
