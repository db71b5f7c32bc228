"""The real world's clock. Nothing below asks for the time itself."""

from __future__ import annotations

import time


class SystemClock:
    """The `Clock` port."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()  # noqa: TID251 - the one clock that is not an argument
