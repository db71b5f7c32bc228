"""The names the model sees: unique, at most 64 characters, and the same for the same tools.

Engines accept one flat list of function names, while every server brings its own. A tool keeps its own name where it
is free; where it is not, it is called `label__tool`. Client tools always keep theirs: the client will look for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import structs

from app.turn.items import ToolSpec
from app.turn.names import clean


def offered(
    client_tools: Sequence[ToolSpec], listings: Mapping[str, Sequence[ToolSpec]], prefixed: Collection[str] = ()
) -> tuple[ToolSpec, ...]:
    """All tools as the model is shown them: the client's in request order, then each server's by name.

    Tools of the `prefixed` servers always carry their label: they may be found long after the others were named.
    Servers come in the order of `listings`. A server's own order is not trusted to be stable, and a prompt whose tools
    move has no cached prefix.
    """
    tools = list(client_tools)
    taken = {tool.name for tool in client_tools}
    counts: dict[str, int] = {}
    for specs in listings.values():
        for spec in specs:
            plain = clean(spec.tool or spec.name)
            counts[plain] = counts.get(plain, 0) + 1
    for label, specs in listings.items():
        for spec in sorted(specs, key=lambda each: each.tool or each.name):
            own = spec.tool or spec.name
            plain = clean(own)
            alone = counts[plain] == 1 and plain not in taken and label not in prefixed
            name = plain if alone else _free(f"{label}__{own}", taken)
            taken.add(name)
            tools.append(structs.replace(spec, name=name, tool=own, server_label=label))
    return tuple(tools)


def _free(name: str, taken: set[str]) -> str:
    """`name`, or a variant of it that is still free; the variant depends on nothing but the name and what is taken."""
    candidate = clean(name)
    attempt = 2
    while candidate in taken:
        candidate = clean(f"{name}__{attempt}")
        attempt += 1
    return candidate
