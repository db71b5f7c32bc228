"""A clock turned by hand."""

from __future__ import annotations


class HandClock:
    """The `Clock` port. `at` is what it shows."""

    def __init__(self, at: float = 1_000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at
