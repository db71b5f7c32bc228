"""Follows what one publisher says, over ZeroMQ: subscribes, asks for what was missed, and notices when it is gone.

What the publisher said before we came is asked for at once, for an engine that has nothing to do says nothing either,
and may hold all the prompts that come next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import zmq
import zmq.asyncio
from msgspec import Struct
from xxhash import xxh3_64_intdigest

from app.routing.kv_events.follower import Follower, Verdict
from app.routing.kv_events.words import Batch, Undecodable

_log = logging.getLogger(__name__)

_HIGH_WATER = 100_000
# Replays are of memory, so a publisher that takes longer for a message has none.
_REPLAY_SECS = 2.0
# ZeroMQ reconnects by itself; it begins at once and tries less and less often.
_RECONNECT_MS, _RECONNECT_MOST_MS = 100, 5_000


class Source(Struct, frozen=True):
    """Where a publisher is: its stream, and where past messages can be asked for, if anywhere.

    `rank` is the data-parallel replica that it speaks for, whatever its messages say: older engines' do not.
    """

    stream: str
    replay: str | None = None
    rank: int = 0


class Listener(Protocol):
    """Told what the messages mean."""

    def heard(self, batch: Batch) -> None:
        """A batch, in order."""
        ...

    def void(self, rank: int | None = None) -> None:
        """What was heard so far of a replica, or of all, is not so any more, or cannot be relied upon."""
        ...

    def lost(self) -> None:
        """Nobody is there to be heard."""
        ...


def sources(address: str, ranks: int) -> list[Source]:
    """The publishers of a worker with so many data-parallel ranks: `stream` or `stream,replay`, ports counting up."""
    stream, _, replay = address.partition(",")
    return [Source(_moved(stream, rank), _moved(replay, rank) if replay else None, rank) for rank in range(ranks)]


def _moved(address: str, rank: int) -> str:
    if not rank:
        return address
    base, _, port = address.rpartition(":")
    # As engines name the sockets of their ranks where there are no ports to count.
    return f"{base}:{int(port) + rank}" if port.isdigit() else f"{address}_dp{rank}"


class Subscriber:
    """One publisher's messages, decoded by `decode` and told to `listener`. `run` it as a task."""

    def __init__(
        self, context: zmq.asyncio.Context, source: Source, decode: Callable[[bytes], Batch], listener: Listener
    ) -> None:
        self._context = context
        self._source = source
        self._decode = decode
        self._listener = listener
        self.follower = Follower()
        self.refused = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        stream = self._socket(zmq.SUB, self._source.stream)
        stream.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        stream.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MOST_MS)
        stream.setsockopt(zmq.SUBSCRIBE, b"")
        monitor = stream.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        watching = asyncio.create_task(self._watch(monitor))
        try:
            stream.connect(self._source.stream)
            await self._replay()
            while True:
                await self._take(await stream.recv_multipart())
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            stream.disable_monitor()
            monitor.close(linger=0)
            stream.close(linger=0)

    def _socket(self, kind: int, address: str) -> zmq.asyncio.Socket:
        made: zmq.asyncio.Socket = self._context.socket(kind)
        made.set_hwm(_HIGH_WATER)
        # Without it a socket connects to nowhere that is IPv6, and says nothing; with it, a name that has addresses of
        # both families is only reached over IPv6, where engines do not listen unless they are told to.
        made.setsockopt(zmq.IPV6, int("[" in address))
        return made

    async def _watch(self, monitor: zmq.asyncio.Socket) -> None:
        while True:
            await monitor.recv_multipart()
            self._listener.lost()

    async def _take(self, frames: list[bytes]) -> None:
        if len(frames) != 3 or len(frames[1]) != 8:
            self.refused += 1
            return
        number, mark = int.from_bytes(frames[1], "big"), xxh3_64_intdigest(frames[2])
        verdict = self.follower.offer(number, mark)
        if verdict is Verdict.RESTART:
            self._listener.void(self._source.rank)
            verdict = self.follower.offer(number, mark)
        if verdict is Verdict.MISSING:
            await self._replay()
            verdict = self.follower.offer(number, mark)
            if verdict is Verdict.MISSING:
                # They cannot be had. What was known may be wrong now, and what comes is right again.
                self._go_on_from(number, mark)
                verdict = Verdict.TAKE
        if verdict is Verdict.TAKE:
            self._tell(frames[2])

    def _go_on_from(self, number: int, mark: int) -> None:
        if number:
            _log.info("%s: events before %d are lost", self._source.stream, number)
        self._listener.void(self._source.rank)
        self.follower.give_up(number, mark)

    def _tell(self, payload: bytes) -> None:
        try:
            self._listener.heard(Batch(self._decode(payload).told, self._source.rank))
        except Undecodable as error:
            self.refused += 1
            _log.warning("%s: %s", self._source.stream, error)
            # Who knows what it said.
            self._listener.void(self._source.rank)
            self._listener.lost()

    async def _replay(self) -> None:
        """Ask for what is missing, and take as much of it as there is."""
        if self._source.replay is None:
            return
        asking = self._socket(zmq.DEALER, self._source.replay)
        try:
            asking.connect(self._source.replay)
            while not await self._replayed(asking):
                # It is another engine than the one that was known, which is asked for everything.
                self._listener.void(self._source.rank)
        except TimeoutError:
            _log.info("%s does not answer", self._source.replay)
        finally:
            asking.close(linger=0)

    async def _replayed(self, asking: zmq.asyncio.Socket) -> bool:
        """Take what comes of a replay, to its end; whether it is of the engine that was known."""
        known = True
        await asking.send_multipart([b"", self.follower.since.to_bytes(8, "big")])  # pyright: ignore[reportUnknownMemberType]
        while True:
            async with asyncio.timeout(_REPLAY_SECS):
                frames = await asking.recv_multipart()
            if len(frames) != 3 or not frames[2]:
                return known
            if known:
                known = self._take_past(int.from_bytes(frames[1], "big"), frames[2])
            # There may be thousands, all of them here already, and turns wait meanwhile.
            await asyncio.sleep(0)

    def _take_past(self, number: int, payload: bytes) -> bool:
        mark = xxh3_64_intdigest(payload)
        verdict = self.follower.replayed(number, mark)
        if verdict is Verdict.MISSING:
            # The publisher remembers no more than this. It is a part of what is there, and all of it is so.
            self._go_on_from(number, mark)
            verdict = Verdict.TAKE
        if verdict is Verdict.TAKE:
            self._tell(payload)
        return verdict is not Verdict.RESTART
