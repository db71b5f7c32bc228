"""Follows what an engine behind one of SMG's gRPC servicers tells of its cache: `SubscribeKvEvents`.

The server goes on after the number it is given, or says that it cannot (OUT_OF_RANGE), or that what was known is wrong
(DATA_LOSS). A number of 0 means from now on: what the engine held before is never learned, and does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any, Protocol, cast

import grpc
import grpc.aio

from app.routing.kv_events import smg
from app.routing.kv_events.follower import Follower, Verdict
from app.routing.kv_events.subscriber import Listener
from app.routing.kv_events.words import Undecodable

_log = logging.getLogger(__name__)

# The same method has a name for each engine; which one a server has shows when it is called.
_SERVICES = (
    "vllm.grpc.engine.VllmEngine",
    "sglang.grpc.scheduler.SglangScheduler",
    "trtllm.TrtllmService",
    "tokenspeed.grpc.scheduler.TokenSpeedScheduler",
)
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.keepalive_time_ms", 10_000))
_VOID = (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.DATA_LOSS)


class _Call(Protocol):
    """A stream of messages."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def cancel(self) -> bool: ...


class _Gap(Exception):
    """Batches are missing."""


class Streamer:
    """The events of the server at `address`, `grpc://host:port` or `grpcs://`, told to `listener`. `run` it as a task.

    After a failure it waits `away_secs`: the first value, then twice as long each time, up to the second.
    """

    def __init__(self, address: str, listener: Listener, *, away_secs: tuple[float, float] = (0.1, 5.0)) -> None:
        scheme, _, self._target = address.partition("://")
        self._secure = scheme == "grpcs"
        self._listener = listener
        self._away_secs = away_secs
        self._followers: defaultdict[int, Follower] = defaultdict(Follower)
        self._pause_secs = away_secs[0]
        self._asked = False
        self.refused = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        credentials = grpc.ssl_channel_credentials() if self._secure else None
        services = list(_SERVICES)
        async with _channel(self._target, credentials) as channel:
            while True:
                try:
                    await self._follow(channel, services[0])
                    _log.debug("%s ended its stream", self._target)
                except _Gap:
                    continue
                except grpc.aio.AioRpcError as error:
                    code = error.code()
                    _log.debug("%s: %s %s", self._target, code.name, error.details())
                    if code is grpc.StatusCode.UNIMPLEMENTED:
                        services.append(services.pop(0))
                    if code in _VOID:
                        self._void()
                self._listener.lost()
                await asyncio.sleep(self._pause_secs)
                self._pause_secs = min(self._pause_secs * 2, self._away_secs[1])

    async def _follow(self, channel: grpc.aio.Channel, service: str) -> None:
        # Without serializers there are bytes on both sides, which its stubs do not know.
        subscribe = cast("Any", channel.unary_stream(f"/{service}/SubscribeKvEvents"))  # pyright: ignore[reportUnknownMemberType]
        call: _Call = subscribe(smg.request(max(self._followers[0].last, 0)))
        try:
            async for payload in call:
                try:
                    self._take(smg.decode(payload))
                except Undecodable as error:
                    self.refused += 1
                    _log.warning("%s: %s", self._target, error)
                    self._void()
                    self._listener.lost()
        finally:
            call.cancel()

    def _take(self, numbered: smg.Numbered) -> None:
        number, batch = numbered.number, numbered.batch
        self._pause_secs = self._away_secs[0]
        follower = self._followers[batch.rank]
        verdict = Verdict.TAKE
        if follower.last < 0:
            follower.give_up(number)
        else:
            verdict = follower.offer(number)
        if verdict is Verdict.RESTART:
            self._void()
            self._followers[batch.rank].give_up(number)
            verdict = Verdict.TAKE
        if verdict is Verdict.MISSING:
            if batch.rank == 0 and not self._asked:
                self._asked = True
                raise _Gap
            # They cannot be had: only the first rank's can be asked for, and those were.
            _log.info("%s: events before %d are lost", self._target, number)
            self._void()
            self._followers[batch.rank].give_up(number)
            verdict = Verdict.TAKE
        self._asked = False
        if verdict is Verdict.TAKE:
            self._listener.heard(batch)

    def _void(self) -> None:
        self._listener.void()
        self._followers.clear()


def _channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(target, _OPTIONS)
    return grpc.aio.secure_channel(target, credentials, _OPTIONS)
