"""Follows what an engine tells when it is asked, over HTTP: TensorRT-LLM's POST /kv_cache_events.

An answer is gone from the engine once it was given, so nobody else may ask. What the engine's buffer was too small for,
and what an answer that broke off took with it, shows as numbers that are missing; none of it can be asked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import aiohttp

from app.routing.kv_events.follower import Follower, Verdict
from app.routing.kv_events.subscriber import Listener
from app.routing.kv_events.trtllm import Numbered
from app.routing.kv_events.words import Batch, Undecodable

_log = logging.getLogger(__name__)

_TIMEOUT = aiohttp.ClientTimeout(total=10)


class Poller:
    """Asks `url` every `every_secs`, `away_secs` after it failed, and tells `listener`. `run` it as a task."""

    def __init__(
        self,
        url: str,
        decode: Callable[[bytes], Sequence[Numbered]],
        listener: Listener,
        *,
        every_secs: float = 0.1,
        away_secs: float = 2.0,
    ) -> None:
        self._url = url
        self._decode = decode
        self._listener = listener
        self._every_secs = every_secs
        self._away_secs = away_secs
        self.follower = Follower()

    async def run(self) -> None:
        """Follow until cancelled."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                try:
                    async with session.post(self._url, raise_for_status=True) as response:
                        self._take(self._decode(await response.read()))
                except (aiohttp.ClientError, OSError, TimeoutError, ValueError, Undecodable) as error:
                    _log.debug("%s: %s", self._url, error or type(error).__name__)
                    if isinstance(error, Undecodable):
                        self._listener.void()
                    self._listener.lost()
                    await asyncio.sleep(self._away_secs)
                    continue
                await asyncio.sleep(self._every_secs)

    def _take(self, numbered: Sequence[Numbered]) -> None:
        for each in numbered:
            verdict = self.follower.offer(each.number)
            if verdict is Verdict.RESTART:
                self._listener.void()
                verdict = self.follower.offer(each.number)
            if verdict is Verdict.MISSING:
                _log.info("%s: events before %d are lost", self._url, each.number)
                self._listener.void()
                self.follower.give_up(each.number)
            if each.told:
                self._listener.heard(Batch(each.told))
