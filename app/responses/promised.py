"""Whether an answer is what the request was promised: JSON that fits `text.format`'s schema where it is strict.

Engines that enforce the schema never fail here. Others may say anything, and a client that asked for strict output
must not be given something else under the name of a completed response.

The schema is the client's, and this runs beside everybody else's responses. What could keep it busy for long is not
checked: patterns, the uniqueness of items, and references beyond `MAX_REFERENCES`. Nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import UnknownType, ValidationError, best_match  # pyright: ignore[reportUnknownVariableType]
from jsonschema.validators import create  # pyright: ignore[reportUnknownVariableType]
from referencing import Registry
from referencing.exceptions import Unresolvable

from app.turn.errors import Failure
from app.turn.request import Format

MAX_REFERENCES = 2_000
_best = cast("Callable[[Iterator[ValidationError]], ValidationError | None]", best_match)
_COSTLY = frozenset(("pattern", "patternProperties", "unevaluatedProperties", "uniqueItems", "format", "$dynamicRef"))


class _TooMuch(Exception):
    """There are too many references to follow."""


# What comes of following a schema that is none.
_UNFOLLOWED = (
    *(Unresolvable, RecursionError, _TooMuch, UnknownType),
    *(TypeError, ValueError, AttributeError, ArithmeticError, LookupError),
)


def broken_promise(asked: Format, text: str) -> Failure | None:
    """Why the answer `text` is not what `asked` promises; None when it is, or when nothing is promised."""
    if asked.kind != "json_schema" or not asked.strict or asked.schema is None:
        return None
    why = _why(asked.schema, text)
    if why is None:
        return None
    message = f"The model's answer is not what 'text.format' asks for: {why}."
    return Failure(502, "output_schema_mismatch", message, "text.format")


def _why(schema: msgspec.Raw, text: str) -> str | None:
    try:
        answer = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return "it is not valid JSON"
    return unfit(schema, answer)


def unfit(schema: msgspec.Raw, value: object) -> str | None:
    """Why the decoded JSON `value` does not fit the JSON Schema; None when it does, or when nobody can tell."""
    try:
        fault = _best(_validator(msgspec.json.decode(schema)).iter_errors(value))
    except _UNFOLLOWED:
        # A schema that cannot be followed promises nothing that could be checked.
        return None
    return None if fault is None else f"{fault.message[:300]} (at {fault.json_path})"


def _validator(schema: Any) -> Any:
    followed = 0

    def reference(validator: Any, target: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
        nonlocal followed
        followed += 1
        if followed > MAX_REFERENCES:
            raise _TooMuch
        yield from Draft202012Validator.VALIDATORS["$ref"](validator, target, instance, _schema) or ()

    checks = {name: check for name, check in Draft202012Validator.VALIDATORS.items() if name not in _COSTLY}
    checks |= {"$ref": reference, "additionalProperties": _additional}
    return create(Draft202012Validator.META_SCHEMA, checks)(schema, registry=Registry())


def _additional(validator: Any, allowed: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
    if not isinstance(instance, dict) or "patternProperties" in schema:
        return
    for name, value in cast("dict[str, Any]", instance).items():
        if name in schema.get("properties", {}):
            continue
        if allowed is False:
            yield ValidationError(f"{name!r} is not one of its properties")
        else:
            yield from validator.descend(value, allowed, path=name)
