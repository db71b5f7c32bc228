"""Tool definitions: what stands for one, what is wrong with one, whether it is still the one that was accepted. Pure.

A definition is text of a stranger that goes straight into a model's context. So it is small, it hides nothing, and it
does not change behind our back.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from app.mcp.tool_options import Placed, placed
from app.turn.items import ToolSpec

MAX_DESCRIPTION = 16_384
MAX_SCHEMA = 65_536
MAX_DEPTH = 32
_MAX_NODES = 5_000

# Text for the model that a person who reads the definition would not see, or would take for markup.
_HIDDEN = frozenset(("Cf", "Co", "Cs"))
_HARMLESS = frozenset("\u200d")
_TAGS = re.compile(r"<!--|</?\s*(?:important|system|instructions?|secret|hidden|admin)\b", re.IGNORECASE)


class _Hints(Struct, rename="camel"):
    read_only_hint: bool | None = None


class _Accepted(Struct):
    annotations: _Hints | None = None


class Offer(Struct, frozen=True):
    """A tool as its server offers it. `unseen` is what the model is not shown: title and output schema, as JSON."""

    spec: ToolSpec
    unseen: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def claims_to_read(self) -> bool:
        """Whether the server says that the tool only reads."""
        notes = self.spec.annotations
        return notes is not None and msgspec.json.decode(notes, type=_Hints).read_only_hint is True

    def takes(self, options: Mapping[str, msgspec.Raw]) -> Placed:
        """What a client has set, as the tool takes it: as arguments, and beside them."""
        return placed(options, self.spec.parameters)


class Pin(Struct, frozen=True):
    """A definition that was recorded: the one that may be used, and the one the server showed last.

    Both as digest and as canonical JSON. While they differ the tool is not offered.
    """

    tool: str
    accepted_digest: str
    accepted: str
    seen_digest: str
    seen: str
    first_seen_at: int = 0
    changed_at: int = 0

    @property
    def waits(self) -> bool:
        """Whether an admin has to accept it."""
        return self.accepted_digest != self.seen_digest

    @property
    def claims_to_read(self) -> bool:
        """Whether the server said, in the definition that may be used, that the tool only reads."""
        notes = msgspec.json.decode(self.accepted, type=_Accepted).annotations if self.accepted else None
        return notes is not None and notes.read_only_hint is True


def canonical(offer: Offer) -> str:
    """The whole definition as JSON that is the same however the server writes it."""
    spec = offer.spec
    value = {
        "name": spec.tool or spec.name,
        "description": spec.description,
        "input_schema": _value(spec.parameters),
        "annotations": _value(spec.annotations),
        "unseen": _value(offer.unseen),
    }
    return msgspec.json.encode(value, order="sorted").decode()


def digest(definition: str) -> str:
    """What stands for a definition."""
    return hashlib.sha256(definition.encode("utf-8", "surrogatepass")).hexdigest()


def terms_digest(spec: ToolSpec) -> str:
    """What stands for a tool as the model is shown it, which is what listings in a conversation keep of it."""
    return digest(canonical(Offer(spec)))


def faults(offer: Offer) -> tuple[str, ...]:
    """What is wrong with the definition, a short text each; nothing for most."""
    spec = offer.spec
    found = list(_schema_faults(spec.parameters))
    if len(spec.description or "") > MAX_DESCRIPTION:
        found.append(f"its description is longer than {MAX_DESCRIPTION} characters")
    # A schema that is too much to handle is not looked into.
    said = spec.description or "" if found else msgspec.json.decode(canonical(offer))
    found += sorted({fault for each in _strings(said) for fault in _text_faults(each)})
    return tuple(found)


def compare(pin: Pin | None, offer: Offer, *, new: Literal["accept", "quarantine"], now: int) -> Pin:
    """The pin once the server has shown `offer`. What is seen first is accepted, unless it is faulty or `new` is no."""
    shown = canonical(offer)
    mark = digest(shown)
    if pin is None:
        welcome = new == "accept" and not faults(offer)
        accepted = (mark, shown) if welcome else ("", "")
        return Pin(offer.spec.tool or offer.spec.name, *accepted, mark, shown, now, now)
    if pin.seen_digest == mark:
        return pin
    return msgspec.structs.replace(pin, seen_digest=mark, seen=shown, changed_at=now)


def difference(pin: Pin) -> dict[str, dict[str, Any]]:
    """What changed: for each part of the definition that differs, what was accepted and what is seen."""
    before = msgspec.json.decode(pin.accepted or "{}", type=dict[str, Any])
    after = msgspec.json.decode(pin.seen, type=dict[str, Any])
    parts = sorted(before.keys() | after.keys())
    return {
        part: {"accepted": before.get(part), "seen": after.get(part)}
        for part in parts
        if before.get(part) != after.get(part)
    }


def seen_by_people(text: str) -> bool:
    """Whether what a person sees of the text is all there is."""
    return not any(True for _ in _text_faults(text))


def _value(raw: msgspec.Raw | None) -> Any:
    return None if raw is None or not bytes(raw) else msgspec.json.decode(raw)


def _schema_faults(schema: msgspec.Raw) -> Iterator[str]:
    if len(bytes(schema)) > MAX_SCHEMA:
        yield f"its schema is longer than {MAX_SCHEMA} bytes"
        return
    try:
        value = _value(schema)
    except (RecursionError, msgspec.DecodeError):
        yield f"its schema is deeper than {MAX_DEPTH} levels"
        return
    nodes, pending = 0, [(value, 1)]
    while pending:
        node, depth = pending.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            yield f"its schema is deeper than {MAX_DEPTH} levels"
            return
        if nodes > _MAX_NODES:
            yield f"its schema has more than {_MAX_NODES} parts"
            return
        if isinstance(node, dict):
            table = cast("dict[str, Any]", node)
            if any(_is_elsewhere(table.get(key)) for key in ("$ref", "$dynamicRef")):
                yield "its schema refers to another place"
                return
            pending += [(each, depth + 1) for each in table.values()]
        elif isinstance(node, list):
            pending += [(each, depth + 1) for each in cast("list[Any]", node)]


def _is_elsewhere(reference: object) -> bool:
    return isinstance(reference, str) and not reference.startswith("#")


def _strings(value: Any) -> Iterator[str]:
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            for key, each in cast("dict[str, Any]", node).items():
                pending += [key, each]
        elif isinstance(node, list):
            pending += cast("list[Any]", node)


def _text_faults(text: str) -> Iterator[str]:
    if not text.isascii() and any(
        character not in _HARMLESS and unicodedata.category(character) in _HIDDEN for character in text
    ):
        yield "it holds characters that cannot be seen"
    if _TAGS.search(text):
        yield "it holds markup that speaks to the model"
    if any(ord(character) < 32 and character not in "\t\r\n" for character in text):
        yield "it holds control characters"
