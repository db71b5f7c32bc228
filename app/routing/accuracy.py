"""How far a worker's predicted cache can be trusted: predicted against what its engine reports.

An engine that never reported a cached token probably does not report at all, so that is not held against anyone.
"""

from __future__ import annotations

_KEEP = 0.95
# Fewer turns than this say nothing.
_LEAST_TURNS = 20


class Accuracy:
    """Sums of predicted and actual tokens that fade with each turn."""

    def __init__(self) -> None:
        self._reports = False
        self._predicted = 0.0
        self._actual = 0.0
        self._turns = 0

    def observe(self, predicted: int, actual: int) -> bool:
        """Note one turn; whether it counts."""
        self._reports = self._reports or actual > 0
        if not self._reports:
            return False
        self._predicted = self._predicted * _KEEP + predicted
        self._actual = self._actual * _KEEP + min(actual, predicted)
        self._turns += 1
        return True

    @property
    def ratio(self) -> float:
        """The share of what was predicted that turned out to be there; 1 until enough is known."""
        if self._turns < _LEAST_TURNS or self._predicted <= 0:
            return 1.0
        return self._actual / self._predicted
