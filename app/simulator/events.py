"""Publishes what the cache holds over ZeroMQ, as vLLM's engine does: same frames, same messages, same way to ask again.

A message has three frames: topic, sequence number (8 bytes, big-endian, from 0) and the events in MessagePack. Who
missed some asks the other socket for everything from a number on, and gets what is still remembered and an end mark.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import msgspec
import zmq
import zmq.asyncio
from msgspec import Struct

from app.simulator.batch import Stored

Encoding: TypeAlias = Literal["map", "array"]

_REMEMBERED = 10_000
_HIGH_WATER = 100_000
_END = (-1).to_bytes(8, "big", signed=True)


class BlockStored(Struct, frozen=True, tag=True, kw_only=True, gc=False):
    """Blocks came, each behind the one before it, and the first behind `parent_block_hash`.

    `extra_keys` are what else each block is hashed by. There is one group of layers, and its attention is full.
    """

    block_hashes: Sequence[int]
    parent_block_hash: int | None
    token_ids: Sequence[int]
    block_size: int
    lora_id: int | None = None
    medium: str | None = "GPU"
    lora_name: str | None = None
    extra_keys: Sequence[None]
    group_idx: int = 0
    kv_cache_spec_kind: str = "full_attention"


class BlockRemoved(Struct, frozen=True, tag=True, kw_only=True, gc=False):
    """Blocks went."""

    block_hashes: Sequence[int]
    medium: str | None = "GPU"
    group_idx: int = 0


class AllBlocksCleared(Struct, frozen=True, tag=True, gc=False):
    """Nothing is held any more."""


class Batch(Struct, frozen=True, kw_only=True, gc=False):
    """Events of one step."""

    ts: float
    events: Sequence[BlockStored | BlockRemoved | AllBlocksCleared]
    data_parallel_rank: int = 0


def as_arrays(batch: Batch) -> list[object]:
    """The batch as older engines write it: every struct a list, its name first where it is an event."""
    events = [[type(event).__name__, *msgspec.structs.astuple(event)] for event in batch.events]
    return [batch.ts, events, batch.data_parallel_rank]


class Publisher:
    """A PUB socket, made on a running event loop, and with a `replay` address the ROUTER socket beside it.

    `now` is in seconds since the epoch.
    """

    def __init__(
        self,
        block_size: int,
        now: Callable[[], float],
        *,
        endpoint: str,
        replay: str | None = None,
        encoding: Encoding = "map",
    ) -> None:
        self._size = block_size
        self._now = now
        self._encoding = encoding
        self._context = zmq.asyncio.Context()
        self._context.setsockopt(zmq.IPV6, int("[" in endpoint))
        # Speaks as a PUB socket does, and hears who subscribes.
        self._pub: zmq.asyncio.Socket = self._context.socket(zmq.XPUB)
        self._pub.set_hwm(_HIGH_WATER)
        self._pub.bind(endpoint)
        self._sequence = 0
        # What is published meanwhile is lost on its way, and can only be asked for.
        self.losing = False
        self._past: deque[tuple[int, bytes]] = deque(maxlen=_REMEMBERED)
        self.subscribers = 0
        self._tasks = [asyncio.create_task(self._count(), name="counting subscribers")]
        self._router: zmq.asyncio.Socket | None = None
        if replay is not None:
            self._router = self._context.socket(zmq.ROUTER)
            self._router.bind(replay)
            self._tasks.append(asyncio.create_task(self._answer(self._router), name="replaying events"))

    @property
    def addresses(self) -> tuple[str, str]:
        """Where the sockets are, the second one empty when there is none."""
        router = self._router
        return self._bound(self._pub), "" if router is None else self._bound(router)

    def _bound(self, socket: zmq.asyncio.Socket) -> str:
        return socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def publish(self, stored: Sequence[Stored], removed: Sequence[int]) -> None:
        """Tell what came and what went."""
        events: list[BlockStored | BlockRemoved | AllBlocksCleared] = [
            BlockStored(
                block_hashes=run.keys,
                parent_block_hash=run.parent,
                token_ids=run.tokens.tolist(),
                block_size=self._size,
                extra_keys=[None] * len(run.keys),
            )
            for run in stored
        ]
        if removed:
            events.append(BlockRemoved(block_hashes=removed))
        self.send(events)

    def clear(self) -> None:
        """Tell that nothing is held any more."""
        self.send([AllBlocksCleared()])

    def send(self, events: Sequence[BlockStored | BlockRemoved | AllBlocksCleared]) -> None:
        """Publish a batch."""
        batch = Batch(ts=self._now(), events=events)
        payload = msgspec.msgpack.encode(batch if self._encoding == "map" else as_arrays(batch))
        number, self._sequence = self._sequence, self._sequence + 1
        self._past.append((number, payload))
        if not self.losing:
            # With room in the queue this sends at once, and without it the message is dropped, as PUB sockets do.
            _ = self._pub.send_multipart([b"", number.to_bytes(8, "big"), payload])  # pyright: ignore[reportUnknownMemberType]

    async def _count(self) -> None:
        while True:
            self.subscribers += 1 if (await self._pub.recv())[:1] == b"\1" else -1

    async def _answer(self, router: zmq.asyncio.Socket) -> None:
        while True:
            frames = await router.recv_multipart()
            if len(frames) != 3:
                continue
            first = int.from_bytes(frames[2], "big")
            for number, payload in list(self._past):
                if number >= first:
                    await router.send_multipart([frames[0], b"", number.to_bytes(8, "big"), payload])  # pyright: ignore[reportUnknownMemberType]
            await router.send_multipart([frames[0], b"", _END, b""])  # pyright: ignore[reportUnknownMemberType]

    async def close(self) -> None:
        """Close the sockets."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for socket in (self._pub, self._router):
            if socket is not None:
                socket.close(linger=0)
        self._context.destroy(linger=0)
