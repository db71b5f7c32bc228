"""A smallest value that a JSON schema allows, for answers that must have a form. Pure.

`const`, `enum`, `default`, `examples`, `$ref`, `allOf`, `anyOf`, `oneOf`, types, required properties, and the bounds of
numbers, strings and lists are followed; a `pattern`, `not` or `if` is not, so a schema that has one may be missed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

_DEPTH = 32
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT0S",
    "email": "sheep@example.org",
    "hostname": "example.org",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def smallest(schema: object) -> Any:
    """A value of `schema`, the smallest that is easy to find."""
    return _Maker(schema).make(schema, 0)


class _Maker:
    """Makes values of the parts of one schema, whose `$ref`s point into the whole."""

    def __init__(self, root: object) -> None:
        self._root = root

    def make(self, schema: object, depth: int) -> Any:
        if not isinstance(schema, Mapping) or depth > _DEPTH:
            return None
        resolved = self._resolve(cast("Mapping[str, Any]", schema), depth)
        given = [resolved[key] for key in ("const", "default") if key in resolved]
        given += [resolved[key][0] for key in ("enum", "examples") if resolved.get(key)]
        return given[0] if given else self._of_kind(resolved, depth)

    def _of_kind(self, resolved: Mapping[str, Any], depth: int) -> Any:
        match _kind(resolved):
            case "object":
                return self._object(resolved, depth)
            case "array":
                return self._array(resolved, depth)
            case "string":
                return _string(resolved)
            case "integer" | "number" as kind:
                return _number(resolved, whole=kind == "integer")
            case "boolean":
                return False
            case _:
                return None

    def _resolve(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        """The schema with references followed, the first alternative chosen and all of `allOf` put together."""
        merged = {key: value for key, value in schema.items() if key not in ("$ref", "allOf", "anyOf", "oneOf")}
        parts: list[object] = []
        if isinstance(reference := schema.get("$ref"), str):
            parts.append(self._at(reference))
        parts.extend(schema.get("allOf", ()))
        parts.extend(self._simplest(schema[key]) for key in ("anyOf", "oneOf") if schema.get(key))
        for part in parts:
            if isinstance(part, Mapping) and depth < _DEPTH:
                merged = _both(merged, self._resolve(cast("Mapping[str, Any]", part), depth + 1))
        return merged

    def _simplest(self, alternatives: list[Any]) -> Any:
        """Null where it is allowed: it ends a schema that contains itself."""
        return next((each for each in alternatives if each == {"type": "null"}), alternatives[0])

    def _at(self, reference: str) -> object:
        found = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping):
                return None
            found = cast("Mapping[str, Any]", found).get(key)
        return found

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        return {name: self.make(properties.get(name, {}), depth + 1) for name in schema.get("required", ())}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        first: list[Any] = schema.get("prefixItems", [])
        count = max(int(schema.get("minItems", 0)), 0)
        kinds = [*first, *[schema.get("items", {})] * count][:count]
        return [self.make(kind, depth + 1) for kind in kinds]


def _both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {**other, **one}
    if "properties" in one and "properties" in other:
        both["properties"] = {**other["properties"], **one["properties"]}
    if "required" in one and "required" in other:
        both["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    return both


def _kind(schema: Mapping[str, Any]) -> str | None:
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = cast("list[str]", kind)
        return "null" if "null" in kinds or not kinds else kinds[0]
    if kind is not None:
        return str(kind)
    signs = (("properties", "object"), ("required", "object"), ("items", "array"), ("prefixItems", "array"))
    others = (("minLength", "string"), ("format", "string"), ("minimum", "number"), ("maximum", "number"))
    return next((kind for sign, kind in (*signs, *others) if sign in schema), None)


def _string(schema: Mapping[str, Any]) -> str:
    known = _FORMATS.get(schema.get("format", ""), "")
    return known.ljust(int(schema.get("minLength", 0)), "x")


def _number(schema: Mapping[str, Any], *, whole: bool) -> float | int:
    step = schema.get("multipleOf") or (1 if whole else None)
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    if low <= 0 <= high and above < 0 < below:
        return 0
    if max(low, above) > 0 or max(low, above) == 0 == above:
        start, ends, direction = max(low, above), above >= low, 1
    else:
        start, ends, direction = min(high, below), below <= high, -1
    if step is None:
        gap = (min(high, below) - max(low, above)) / 2
        return start + direction * min(1.0, gap) if ends else start
    # Round inwards to a multiple, and one further when the bound itself is excluded.
    count = math.ceil(start / step) if direction > 0 else math.floor(start / step)
    value = count * step
    return value + direction * step if ends and value == start else value
