"""Cache events over gRPC, as SMG's servicers send them: read by hand, followed against a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.responses.ports import RouteKey
from app.routing.kv_events import smg
from app.routing.kv_events.protobuf import Malformed, fields, numbers
from app.routing.kv_events.streamer import Streamer
from app.routing.kv_events.words import Batch, Cleared, Removed, Stored, Undecodable
from app.routing.tokens import ROOT, as_bytes, further
from app.turn.request import TurnRequest
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.unit.routing.fleet_world import FakeWorker, world
from tests.unit.routing.test_kv_polling import Heard

# ── the wire, written as protoc's code writes it ──────────────────────────────


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def num(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def msg(field: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def packed(field: int, values: list[int]) -> bytes:
    return msg(field, *map(varint, values))


def block(name: int, tokens: list[int], *more: bytes, size: int | None = None) -> bytes:
    return msg(1, num(1, name), packed(2, tokens), num(3, len(tokens) if size is None else size), *more)


def stored(*blocks: bytes, parent: int | None = None) -> bytes:
    return msg(3, num(1, 77), msg(2, *blocks, *([] if parent is None else [num(2, parent)])))


def removed(*names: int, level: int | None = None) -> bytes:
    return msg(3, msg(3, packed(1, list(names)), *([] if level is None else [num(2, level)])))


CLEARED = msg(3, msg(4))


def batch(number: int, *events: bytes, rank: int | None = None) -> bytes:
    timestamp = varint(2 << 3 | 1) + b"\0" * 8
    return num(1, number) + timestamp + b"".join(events) + (b"" if rank is None else num(4, rank))


# ── reading ───────────────────────────────────────────────────────────────────


def test_a_batch() -> None:
    payload = batch(
        9, stored(block(-5, [1, 300]), block(2**40, [70_000, 4]), parent=7), removed(-5, 8), CLEARED, rank=2
    )
    told = [Stored([2**64 - 5, 2**40], 7, [1, 300, 70_000, 4], 2), Removed([2**64 - 5, 8]), Cleared()]
    assert smg.decode(payload) == smg.Numbered(9, Batch(told, 2))


def test_what_is_not_in_fast_memory_and_whose_adapter_it_is() -> None:
    payload = batch(1, stored(block(3, [1], num(4, 6), num(5, 1))), removed(3, level=2))
    assert smg.decode(payload).batch.told == [Stored([3], None, [1], 1, [b"6"], "CPU"), Removed([3], "CPU")]


def test_a_block_that_is_not_whole_ends_the_row() -> None:
    assert smg.decode(batch(1, stored(block(3, [1, 2]), block(4, [5], size=2)))).batch.told == [
        Stored([3], None, [1, 2], 2)
    ]
    assert smg.decode(batch(1, stored(block(4, [5], size=2)), msg(3, num(1, 5)))).batch.told == []


def group(operation: int, kind: bytes, *more: bytes) -> bytes:
    return msg(6, num(1, operation), num(2, 1), msg(7, kind), *more)


def test_of_a_hybrid_models_groups_only_full_attention_counts() -> None:
    store = (msg(3, b"aa"), msg(3, b"bb"), msg(4, b"p"), packed(5, [1, 2, 3, 4]), num(6, 2), num(9, 1))
    payload = batch(
        3,
        num(5, 1),
        group(1, b"full_attention", *store),
        group(1, b"sliding_window", *store),
        group(1, b"full_attention", *store[:-1]),
        group(1, b"full_attention", *store[1:]),
        group(2, b"full_attention", msg(3, b"aa")),
        group(3, b"full_attention"),
        group(9, b"full_attention"),
    )
    told = [Stored([b"aa", b"bb"], b"p", [1, 2, 3, 4], 2), Removed([b"aa"]), Cleared()]
    assert smg.decode(payload).batch.told == told


def test_fields_nobody_knows_are_passed_over() -> None:
    more = num(90, 1) + msg(91, b"x") + varint(92 << 3 | 1) + b"\0" * 8 + varint(93 << 3 | 5) + b"\0" * 4
    assert smg.decode(more + batch(9, CLEARED) + more) == smg.Numbered(9, Batch([Cleared()]))
    # Numbers that are not packed are as good.
    unpacked = msg(3, msg(3, num(1, 5), num(1, 6)))
    assert smg.decode(batch(1, unpacked)).batch.told == [Removed([5, 6])]


@pytest.mark.parametrize(
    "payload",
    [b"\x08", b"\x08\xff", b"\x0a\x05abc", b"\x0b", b"\x09\0\0", num(3, 1), msg(1, b"x"), b"\x08" + b"\xff" * 11,
     batch(1, msg(3, msg(3, msg(1, b"\xff")))), group(1, b"\xff")],
)  # fmt: skip
def test_nonsense_is_refused(payload: bytes) -> None:
    with pytest.raises(Undecodable):
        smg.decode(payload)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(Undecodable):
        smg.decode(data)


@given(st.lists(st.integers(0, 2**64 - 1)), st.integers(0, 2**64 - 1))
def test_numbers_come_back(values: list[int], one: int) -> None:
    ((_, found),) = fields(packed(1, values))
    assert numbers(found) == values
    assert list(fields(smg.request(one))) == ([(1, one)] if one else [])
    with pytest.raises(Malformed):
        numbers(memoryview(b"\x01\x80"))


# ── following ─────────────────────────────────────────────────────────────────


class Server:
    """A real gRPC server of one engine's service. It remembers batches, and begins where it is asked to."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.past: list[tuple[int, bytes]] = []
        self.asked: list[int] = []
        self.refuses: grpc.StatusCode | None = None
        # One that nobody else is given while it is away.
        self.port = free_port()
        self._news = asyncio.Condition()
        self._cut = 0
        self._server: grpc.aio.Server | None = None

    async def say(self, number: int, *events: bytes, rank: int | None = None, lost: bool = False) -> None:
        async with self._news:
            self.past.append((-1 if lost else number, batch(number, *events, rank=rank)))
            self._news.notify_all()

    async def cut(self) -> None:
        async with self._news:
            self._cut += 1
            self._news.notify_all()

    async def _subscribe(self, request: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        start = dict(fields(request)).get(1, 0)
        assert isinstance(start, int)
        self.asked.append(start)
        if start and self.refuses is not None:
            await context.abort(self.refuses, "no")
        cut, at = self._cut, 0 if start else len(self.past)
        while cut == self._cut:
            while at < len(self.past):
                number, payload = self.past[at]
                at += 1
                if number > start or not start:
                    yield payload
            async with self._news:
                if at == len(self.past) and cut == self._cut:
                    await self._news.wait()

    async def start(self) -> None:
        self._server = grpc.aio.server()
        handler = grpc.unary_stream_rpc_method_handler(self._subscribe)
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(self.service, {"SubscribeKvEvents": handler})]
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(None)


@contextlib.asynccontextmanager
async def followed(service: str = "vllm.grpc.engine.VllmEngine") -> AsyncGenerator[tuple[Server, list[str], Streamer]]:
    server, heard = Server(service), Heard()
    await server.start()
    streamer = Streamer(f"grpc://127.0.0.1:{server.port}", heard, away_secs=(0.01, 0.05))
    task = asyncio.create_task(streamer.run())
    try:
        await eventually(lambda: len(server.asked) > 0)
        yield server, heard.told, streamer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.stop()


@pytest.mark.parametrize(
    "service",
    [
        "vllm.grpc.engine.VllmEngine",
        "sglang.grpc.scheduler.SglangScheduler",
        "trtllm.TrtllmService",
        "tokenspeed.grpc.scheduler.TokenSpeedScheduler",
    ],
)
async def test_whichever_engine_it_is(service: str) -> None:
    async with followed(service) as (server, told, _):
        await server.say(5, stored(block(7, [1, 2])))
        await server.say(6, removed(7))
        await eventually(lambda: len(told) >= 2 and told[-1:] == ["Removed [7]"])
        assert [each for each in told if each != "lost"] == ["Stored [7]", "Removed [7]"]


async def test_a_stream_that_is_cut_goes_on_where_it_was() -> None:
    async with followed() as (server, told, _):
        await server.say(5, stored(block(7, [1])))
        await eventually(lambda: told == ["Stored [7]"])
        await server.cut()
        await server.say(6, stored(block(8, [1])))
        await eventually(lambda: told[-1:] == ["Stored [8]"])
        assert told == ["Stored [7]", "lost", "Stored [8]"]
        assert server.asked == [0, 5]


async def test_what_is_missing_is_asked_for_and_given_up_only_then() -> None:
    async with followed() as (server, told, _):
        await server.say(5, stored(block(7, [1])))
        await eventually(lambda: told == ["Stored [7]"])
        # One that was lost on its way: the server has it still.
        server.past.append((6, batch(6, stored(block(8, [1])))))
        server.past[-1], swapped = (7, batch(7, stored(block(9, [1])))), server.past[-1]
        await server.cut()
        server.past.insert(1, swapped)
        await eventually(lambda: told[-1:] == ["Stored [9]"])
        assert told == ["Stored [7]", "lost", "Stored [8]", "Stored [9]"]
        await server.say(10, stored(block(10, [1])))
        await eventually(lambda: told[-1:] == ["Stored [10]"])
        assert told[-2:] == ["void", "Stored [10]"]
        assert server.asked == [0, 5, 7]


@pytest.mark.parametrize("code", [grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.DATA_LOSS])
async def test_a_server_that_cannot_go_on_voids_what_was_known(code: grpc.StatusCode) -> None:
    async with followed() as (server, told, _):
        await server.say(5, stored(block(7, [1])))
        await eventually(lambda: told == ["Stored [7]"])
        server.refuses = code
        await server.cut()
        await eventually(lambda: len(server.asked) == 3)
        await server.say(0, stored(block(8, [1])))
        await eventually(lambda: told[-1:] == ["Stored [8]"])
        assert server.asked == [0, 5, 0]
        assert [each for each in told if each != "lost"] == ["Stored [7]", "void", "Stored [8]"]


async def test_an_engine_that_began_anew_and_ranks_that_count_by_themselves() -> None:
    async with followed() as (server, told, _):
        await server.say(5, stored(block(7, [1])))
        await server.say(0, stored(block(8, [1])), rank=1)
        await server.say(1, stored(block(9, [1])), rank=1)
        await server.say(0, stored(block(10, [1])))
        await eventually(lambda: told[-1:] == ["Stored [10]"])
        assert told == ["Stored [7]", "Stored [8]", "Stored [9]", "void", "Stored [10]"]


async def test_a_server_that_goes_away_comes_back_and_talks_nonsense() -> None:
    async with followed() as (server, told, streamer):
        await server.say(5, stored(block(7, [1])))
        await eventually(lambda: told == ["Stored [7]"])
        await server.stop()
        await eventually(lambda: told[-1:] == ["lost"])
        await server.start()
        await eventually(lambda: len(server.asked) > 1)
        async with server._news:
            server.past.append((6, b"\xff"))
            server._news.notify_all()
        await eventually(lambda: streamer.refused == 1)
        assert told[-2:] == ["void", "lost"]
        await server.say(6, stored(block(8, [1])))
        await eventually(lambda: told[-1:] == ["Stored [8]"])


async def test_a_fleet_knows_what_such_a_worker_holds() -> None:
    tokens = list(range(640))
    keys: list[int] = []
    further(ROOT, as_bytes(tokens), keys)
    w = world(a=FakeWorker(), b=FakeWorker())
    server = Server("vllm.grpc.engine.VllmEngine")
    await server.start()
    fleet = w.fleet(
        kv_events=("tcp://127.0.0.1:1", f"grpc://127.0.0.1:{server.port}"), policy="cache_aware", tokens="engine"
    )
    await fleet.ready()
    running = asyncio.create_task(fleet.run())
    try:
        await eventually(lambda: len(server.asked) > 0)
        await server.say(3, stored(*(block(at + 1, tokens[at * 16 : at * 16 + 16]) for at in range(40))))
        await eventually(lambda: fleet.desk.tells("http://b"))
        assert fleet.desk.cached_blocks("http://b") == 10
        assert fleet.desk.caches.depths(keys) == {fleet.desk.caches.slot("http://b"): 10}
        # Nobody listens there any more, and then somebody does again.
        worker = fleet.registry.get("http://b")
        fleet.put(replace(worker, kv_events=None))
        await eventually(lambda: not fleet.desk.tells("http://b"))
        fleet.put(worker)
        await eventually(lambda: len(server.asked) > 1)
        await server.say(4, stored(*(block(at + 1, tokens[at * 16 : at * 16 + 16]) for at in range(4))))
        await eventually(lambda: fleet.desk.tells("http://b"))
        assert fleet.desk.cached_blocks("http://b") == 1
        fleet.remove("http://b")
        async with fleet.lease(RouteKey(tenant="t", model="m"), TurnRequest(model="m", items=())):
            pass
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()
