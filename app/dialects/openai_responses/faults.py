"""Turning what is wrong with a request's JSON into an `InvalidRequest` that names the field."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from app.turn.errors import InvalidRequest

_T = TypeVar("_T")
_AT = re.compile(r" - at (?:`key` in )?`\$([^`]*)`\Z")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]+)`")

# What the decoders raise for bytes that are not the JSON they should be; the last is for a million brackets.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def join(prefix: str, path: str) -> str:
    """`tools[1]` and `.name` make `tools[1].name`; either may be empty."""
    return prefix + path if prefix else path.removeprefix(".")


def read(decoder: msgspec.json.Decoder[_T], raw: msgspec.Raw | bytes, prefix: str = "") -> _T:
    """Decode. Raises `InvalidRequest` whose `param` is the path of the wrong field, below `prefix`."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise invalid(str(error), prefix) from None
    except UNREADABLE as error:
        message = f"Invalid JSON in '{prefix}'." if prefix else unparsable(error)
        raise InvalidRequest(message, param=prefix or None, code="invalid_json") from None


def unparsable(error: Exception) -> str:
    """The message for a body that is no JSON."""
    why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return f"The body of the request is not valid JSON: {why}."


def invalid(complaint: str, prefix: str = "") -> InvalidRequest:
    """The error for a decoder's complaint, such as ``Expected `int`, got `str` - at `$.input[0].role` ``."""
    at = _AT.search(complaint)
    path = join(prefix, (at.group(1) if at else "").replace("[...]", ""))
    missing = _MISSING.match(complaint)
    if missing:
        return absent(join(path, f".{missing.group(1)}"))
    if more := _UNKNOWN.match(complaint):
        return unknown(join(path, f".{more.group(1)}"))
    what = complaint[: at.start()] if at else complaint
    code = "invalid_type" if ", got " in what else "invalid_value"
    where = f"'{path}'" if path else "the request's body"
    return InvalidRequest(f"Invalid value for {where}: {what.replace('`', '')}.", param=path or None, code=code)


def absent(path: str) -> InvalidRequest:
    """The error for a field that must be there."""
    return InvalidRequest(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")


def unknown(path: str) -> InvalidRequest:
    """The error for a field that there is none of."""
    return InvalidRequest(f"Unknown parameter: '{path}'.", param=path, code="unknown_parameter")


def wrong(path: str, why: str) -> InvalidRequest:
    """The error for a value that has the right type and is still wrong."""
    return InvalidRequest(f"Invalid '{path}': {why}", param=path, code="invalid_value")
