"""What the API has and this server does not, one line each. A request that asks for one of these is refused, by name,
and `support` says why.

Removing a line is how a feature is announced to be there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from app.dialects.openai_responses.wire import NULL
from app.turn.errors import InvalidRequest

# field, whether a value asks for what is missing, and what to do instead (may be empty)
Line: TypeAlias = tuple[str, Callable[[Any], bool], str]


def _given(value: object) -> bool:
    return value is not None and value != NULL


def _true(value: object) -> bool:
    return value is True


def _programmatic(callers: list[str] | None) -> bool:
    return callers is not None and callers != ["direct"]


REQUEST: tuple[Line, ...] = (
    ("background_options", _given, ""),
    ("conversation", _given, "Use 'previous_response_id'."),
    ("prompt", _given, ""),
    ("access_programs", _given, ""),
    ("moderation", _given, ""),
    ("image.context_compression", lambda value: value == "enabled", ""),
    ("reasoning.context", lambda value: value == "current_turn", "All reasoning of the context is shown to the model."),
    ("reasoning.mode", lambda value: value not in {None, "standard"}, ""),
    ("prompt_cache_options.prewarm", _true, ""),
    ("prompt_cache_options.comparison_response_id", _given, ""),
)

FUNCTION_TOOL: tuple[Line, ...] = (
    ("asynchronous", _true, "Every call is answered before the model goes on."),
    ("allowed_callers", _programmatic, "Only 'direct' calls are supported."),
)

PLAIN_TOOL: tuple[Line, ...] = (("allowed_callers", _programmatic, "Only 'direct' calls are supported."),)

MCP_TOOL: tuple[Line, ...] = (
    ("tunnel_id", _given, ""),
    ("allowed_callers", _programmatic, "Only 'direct' calls are supported."),
)


def refuse(param: str, hint: str = "") -> InvalidRequest:
    """The error for something that is not there yet. `param` is the path of the field."""
    message = f"'{param}' asks for something this server does not support yet."
    return InvalidRequest(f"{message} {hint}".rstrip(), param=param, code="unsupported_parameter")


def check(value: object, lines: Iterable[Line], prefix: str = "") -> None:
    """Raise `InvalidRequest` for the first line that `value` runs into. `prefix` is put before the field's name."""
    for path, asks, hint in lines:
        found: Any = value
        for step in path.split("."):
            found = None if found is None else getattr(found, step)
        if asks(found):
            # A field named with a word Python keeps for itself.
            raise refuse(prefix + path.replace("asynchronous", "async"), hint)
