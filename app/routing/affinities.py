"""Which worker a key's last turn went to, for the keys that were used last."""

from __future__ import annotations

from collections import OrderedDict


class Affinities:
    """At most `most` keys; the one that was not used for longest is forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._workers: OrderedDict[str, str] = OrderedDict()

    def get(self, key: str | None) -> str | None:
        """The worker of the key's last turn."""
        return None if key is None else self._workers.get(key)

    def put(self, key: str | None, worker_id: str) -> None:
        """The key's turn went to the worker."""
        if key is None:
            return
        self._workers[key] = worker_id
        self._workers.move_to_end(key)
        if len(self._workers) > self._most:
            self._workers.popitem(last=False)
