"""A value that must never be shown: not in a log line, not in a repr, not in `config explain`."""

from __future__ import annotations


class Secret:
    """A secret string. `reveal()` is the only way to its value.

    Settings read it as `env:NAME`, as `file:PATH` or literally; `origin` is what was written, where that is no secret.
    """

    __slots__ = ("_value", "origin")

    def __init__(self, value: str, origin: str | None = None) -> None:
        self._value = value
        self.origin = origin

    def reveal(self) -> str:
        """The value, for whoever must send it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Secret({self.origin!r})" if self.origin else "Secret('***')"

    __str__ = __repr__
