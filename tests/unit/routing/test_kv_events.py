"""Engines' messages, read and followed: every encoding, and every way in which a stream can go wrong."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import msgspec
import pytest
import zmq.asyncio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.responses.ports import ModelInfo, RouteKey
from app.routing.cache_events import Hearing
from app.routing.cachemap import CacheMap, Exact
from app.routing.kv_events import sglang, subscriber, trtllm, vllm
from app.routing.kv_events.book import Book
from app.routing.kv_events.follower import Follower, Verdict
from app.routing.kv_events.subscriber import Source, Subscriber, sources
from app.routing.kv_events.words import Batch, Cleared, Removed, Stored, Told, Undecodable
from app.routing.token_prompts import TokenBook
from app.routing.tokens import GRANULE, ROOT, as_bytes, further
from app.simulator.batch import Stored as Run
from app.simulator.events import Publisher
from app.simulator.tokens import tokens_of
from app.turn.errors import NotFound
from app.turn.request import TurnRequest
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.unit.routing.fleet_world import FakeWorker, world

pack = msgspec.msgpack.encode
STORED = {
    "type": "BlockStored",
    "block_hashes": [7, 8],
    "parent_block_hash": None,
    "token_ids": [1, 2, 3, 4],
    "block_size": 2,
    "lora_id": None,
    "medium": "GPU",
    "lora_name": None,
}


def test_maps_are_read_with_fields_nobody_knows() -> None:
    events = [{**STORED, "novel": 1}, {"type": "BlockRemoved", "block_hashes": [7], "medium": "GPU"},
              {"type": "AllBlocksCleared"}, {"type": "SomethingNew", "x": 1}]  # fmt: skip
    batch = vllm.decode(pack({"ts": 1.0, "events": events, "data_parallel_rank": 3, "more": 0}))
    assert batch == Batch([Stored([7, 8], None, [1, 2, 3, 4], 2), Removed([7]), Cleared()], 3)


@pytest.mark.parametrize("decode", [vllm.decode, sglang.decode])
def test_arrays_are_read_short_and_long(decode) -> None:
    short = ["BlockStored", [7, 8], None, [1, 2, 3, 4], 2, None]
    long = ["BlockStored", [7, 8], 5, [1, 2, 3, 4], 2, None, "CPU", None, None, 0, "full_attention", 0, "new"]
    batch = decode(pack([1.0, [short, long, ["BlockRemoved", [7]], ["AllBlocksCleared"]]]))
    assert batch.told[0] == Stored([7, 8], None, [1, 2, 3, 4], 2)
    assert batch.told[1] == Stored([7, 8], 5, [1, 2, 3, 4], 2, medium="CPU", group=0)
    assert batch.told[2:] == [Removed([7]), Cleared()]
    assert decode(pack([1.0, [], 2])).rank == 2


def test_tensorrt_llms_mixture_of_both_is_read() -> None:
    # Over ZeroMQ its batches are arrays, and their events are maps.
    events = [STORED, {"type": "BlockRemoved", "block_hashes": [7], "medium": "GPU"}, {"type": "AllBlocksCleared"}]
    batch = vllm.decode(pack([1.0, events, 3]))
    assert batch == Batch([Stored([7, 8], None, [1, 2, 3, 4], 2), Removed([7]), Cleared()], 3)


def test_hashes_may_be_bytes_and_salts_tell_blocks_apart() -> None:
    event = {**STORED, "block_hashes": [b"a" * 32, b"b" * 32], "extra_keys": [["salt"], None]}
    (stored,) = vllm.decode(pack({"ts": 0, "events": [event]})).told
    assert isinstance(stored, Stored)
    assert stored.hashes == [b"a" * 32, b"b" * 32]
    assert stored.salts == [pack(["salt"]), b""]
    (lora,) = vllm.decode(pack({"ts": 0, "events": [{**STORED, "lora_name": "x"}]})).told
    assert isinstance(lora, Stored)
    assert (lora.adapter, lora.salts) == (b"x", ())


@pytest.mark.parametrize(
    "kind", ["sliding_window", "sliding_window_mla", "mamba", "chunked_local_attention", "unknown"]
)
def test_groups_without_full_attention_are_passed_over(kind: str) -> None:
    event = {**STORED, "group_idx": 1, "kv_cache_spec_kind": kind}
    assert vllm.decode(pack({"ts": 0, "events": [event]})).told == []


@pytest.mark.parametrize("kind", ["full_attention", "mla_attention", "sink_full_attention"])
def test_full_attention_has_several_names(kind: str) -> None:
    event = {**STORED, "group_idx": 2, "kv_cache_spec_kind": kind}
    told = vllm.decode(pack({"ts": 0, "events": [event]})).told
    assert told == [Stored([7, 8], None, [1, 2, 3, 4], 2, group=2)]


def test_a_block_that_another_group_of_layers_gives_up_is_still_there() -> None:
    # Both groups name a block by its prefix, so by the same hash; sliding windows give theirs up early.
    stored = {**STORED, "token_ids": [1] * 2 * GRANULE, "block_size": GRANULE}
    full = {**stored, "group_idx": 0, "kv_cache_spec_kind": "full_attention"}
    window = {**stored, "group_idx": 1, "kv_cache_spec_kind": "sliding_window"}
    gone = [{"type": "BlockRemoved", "block_hashes": [7], "medium": "GPU", "group_idx": group} for group in (1, 0)]
    book = Book()
    book.read(vllm.decode(pack({"ts": 0, "events": [full, window, gone[0]]})))
    assert sorted(book.held()) == sorted(keys_of([1] * 2 * GRANULE))
    book.read(vllm.decode(pack({"ts": 0, "events": [gone[1]]})))
    assert book.held() == keys_of([1] * 2 * GRANULE)[1:]


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", pack(5), pack([1.0]), pack({"ts": 1}), pack([1.0, [["BlockStored", ["x"], None, [], 2]]]),
     pack({"ts": 0, "events": [{**STORED, "token_ids": [1]}]}), pack([0, [["BlockStored"]]])],
)  # fmt: skip
def test_nonsense_is_refused(payload: bytes) -> None:
    with pytest.raises(Undecodable):
        vllm.decode(payload)


def test_tensorrt_llms_events() -> None:
    def block(name: int, *ids: int) -> dict[str, object]:
        return {"block_hash": name, "tokens": [{"token_id": each, "token_extra_id": 0} for each in ids]}

    events = [
        {"event_id": 0, "data": {"type": "created", "num_blocks_per_cache_level": [10]}},
        {"event_id": 1, "data": {"type": "stored", "parent_hash": None, "blocks": [block(1, 5, 6), block(2, 7)]}},
        {"event_id": 2, "data": {"type": "updated", "block_hash": 1}},
        {"event_id": 3, "data": {"type": "removed", "block_hashes": [1]}},
    ]
    decoded = trtllm.Decoder()(msgspec.json.encode(events))
    assert [each.number for each in decoded] == [0, 1, 2, 3]
    assert [each.told for each in decoded] == [(Cleared(),), (Stored([1], None, [5, 6], 2),), (), (Removed([1]),)]


@pytest.mark.parametrize("body", [b'[{"event_id": 1}]', b"[1]", b'{"a": 1}', b"5", b'[{"window_size": "x"}]', b"["])
def test_what_tensorrt_llm_does_not_say(body: bytes) -> None:
    with pytest.raises(Undecodable):
        trtllm.Decoder()(body)


def test_of_tensorrt_llms_windows_the_widest_counts() -> None:
    decode = trtllm.Decoder()

    def told(*events: tuple[int, int]) -> list[tuple[Told, ...]]:
        said = [
            {"event_id": name, "window_size": window, "data": {"type": "removed", "block_hashes": [name]}}
            for name, window in events
        ]
        return [each.told for each in decode(msgspec.json.encode(said))]

    assert told((1, 128)) == [(Removed([1]),)]
    # There is a wider one, so what was taken for true was not.
    assert told((2, 128), (3, 4096), (4, 128)) == [(Cleared(),), (Removed([3]),), ()]
    assert told((5, 4096), (6, 128)) == [(Removed([5]),), ()]


# ── the book ──────────────────────────────────────────────────────────────────


def keys_of(tokens: list[int]) -> list[int]:
    keys: list[int] = []
    further(ROOT, as_bytes(tokens), keys)
    return keys


def told(tokens: list[int], size: int, first: int = 0, parent: int | None = None) -> Stored:
    count = len(tokens) // size
    return Stored(list(range(first + 1, first + count + 1)), parent, tokens[: count * size], size)


@given(st.sampled_from([1, 4, 16, 32, 48, 64, 128, 192]), st.integers(0, 700), st.data())
def test_what_an_engine_holds_has_the_keys_that_a_prompt_asks_for(size: int, length: int, data: st.DataObject) -> None:
    tokens = [(each * 7919) % 50_000 for each in range(length)]
    book = Book()
    blocks = length // size
    cut = data.draw(st.integers(0, blocks))
    stored = [key for change in book.read(Batch([told(tokens[: cut * size], size)])) for key in change.stored]
    rest = told(tokens[cut * size :], size, cut, cut or None)
    stored += [key for change in book.read(Batch([rest])) for key in change.stored]
    assert stored == keys_of(tokens[: blocks * size])
    assert sorted(book.held()) == sorted(stored)
    # Taken away again from the tail, in two goes, nothing is left.
    gone = [key for change in book.read(Batch([Removed(list(range(blocks, cut, -1)))])) for key in change.removed]
    gone += [key for change in book.read(Batch([Removed(list(range(cut, 0, -1)))])) for key in change.removed]
    assert sorted(gone) == sorted(stored)
    assert len(book) == 0
    assert book.held() == []


def test_orphans_are_counted_and_left_out() -> None:
    book = Book()
    assert book.read(Batch([told([1] * 64, 16, 100, parent=99)])) == [book.read(Batch([Stored([], None, [], 16)]))[0]]
    assert book.orphans == 4


def test_another_medium_and_another_salt_are_another_thing() -> None:
    book, tokens = Book(), [1] * GRANULE
    offloaded = Stored([1], None, tokens, GRANULE, medium="CPU")
    assert book.read(Batch([offloaded])) == []
    (salted,) = book.read(Batch([Stored([2], None, tokens, GRANULE, [b"salt"])]))
    assert salted.stored != keys_of(tokens)
    assert len(salted.stored) == 1


@pytest.mark.parametrize("adapter", ["", "x"])
@pytest.mark.parametrize("salt", ["", "s"])
def test_a_prompt_of_an_adapter_is_found_again(adapter: str, salt: str) -> None:
    tokens = some(3)
    keys: list[list[str] | None] = [[adapter] if adapter else None for _ in range(3)]
    keys[0] = [each for each in (adapter, salt) if each] or None
    event = {
        **STORED, "block_hashes": [1, 2, 3], "token_ids": tokens, "block_size": GRANULE, "lora_name": adapter or None,
        "extra_keys": keys,
    }  # fmt: skip
    book = Book()
    book.read(vllm.decode(pack({"ts": 0, "events": [event]})))
    request = TurnRequest(model="m", items=(), extra={"cache_salt": msgspec.Raw(b'"s"')} if salt else {})
    text = msgspec.json.encode(tokens)
    asked = TokenBook().read(RouteKey(tenant="t", model="m"), request, text, adapter.encode())
    plain = TokenBook().read(RouteKey(tenant="t", model="m"), TurnRequest(model="m", items=()), text)
    assert asked is not None
    assert plain is not None
    assert sorted(asked.keys) == sorted(book.held())
    assert (plain.keys == asked.keys) is not bool(adapter or salt)


async def test_an_adapter_is_known_by_the_workers_list() -> None:
    async def tokenize(_url: str, _request: TurnRequest, **_: object) -> bytes:
        return msgspec.json.encode(some(2))

    fleet = world(a=FakeWorker()).fleet(policy="cache_aware", tokens="engine", tokenize=tokenize)
    await fleet.ready()
    models = (ModelInfo("m", 1, "me"), ModelInfo("x", 1, "me", adapter=True))
    fleet.put(replace(fleet.worker("http://a"), models=models))
    book = Book()
    adapted = {**STORED, "token_ids": some(2), "block_size": GRANULE, "lora_name": "x"}
    book.read(vllm.decode(pack({"ts": 0, "events": [adapted]})))
    plain = await fleet.chooser.read(RouteKey(tenant="t", model="m"), TurnRequest(model="m", items=()))
    asked = await fleet.chooser.read(RouteKey(tenant="t", model="x"), TurnRequest(model="x", items=()))
    assert list(plain.keys) == keys_of(some(2))
    assert sorted(asked.keys) == sorted(book.held())


async def test_a_worker_is_asked_for_tokens_with_its_key() -> None:
    keys: list[object] = []

    async def tokenize(_url: str, _request: TurnRequest, **more: object) -> bytes:
        keys.append(more["api_key"])
        return msgspec.json.encode(some(2))

    fleet = world(a=FakeWorker()).fleet(policy="cache_aware", tokens="engine", tokenize=tokenize, worker_api_key="k")
    await fleet.ready()
    await fleet.chooser.read(RouteKey(tenant="t", model="m"), TurnRequest(model="m", items=()))
    assert keys == ["k"]


def test_a_block_of_two_ranks_is_held_until_neither_holds_it() -> None:
    book, block = Book(), told([1] * GRANULE, GRANULE)
    assert book.read(Batch([block], 0))[0].stored == keys_of([1] * GRANULE)
    assert book.read(Batch([block], 1))[0].stored == []
    assert book.read(Batch([block], 1))[0].stored == []
    assert book.read(Batch([Removed([1])], 0))[0].removed == []
    assert book.read(Batch([Cleared()], 1))[0].removed == keys_of([1] * GRANULE)


# ── the follower ──────────────────────────────────────────────────────────────


def test_a_whole_stream_is_taken() -> None:
    follower = Follower()
    assert [follower.offer(number) for number in range(5)] == [Verdict.TAKE] * 5


def test_a_gap_is_filled_and_what_came_twice_is_skipped() -> None:
    follower = Follower()
    follower.offer(0)
    assert follower.offer(3) is Verdict.MISSING
    replayed = [follower.replayed(number) for number in (0, 1, 2, 3, 4)]
    assert replayed == [Verdict.SKIP, *[Verdict.TAKE] * 4]
    assert [follower.offer(number) for number in (3, 4, 5)] == [Verdict.SKIP, Verdict.SKIP, Verdict.TAKE]
    assert follower.gaps == 1


def test_a_gap_that_cannot_be_filled_is_given_up() -> None:
    follower = Follower()
    assert follower.offer(7) is Verdict.MISSING
    follower.give_up(7)
    assert follower.offer(8) is Verdict.TAKE


@pytest.mark.parametrize("first", [0, 2])
def test_an_engine_that_began_anew_is_noticed(first: int) -> None:
    follower = Follower()
    for number in range(4):
        follower.offer(number)
    assert follower.offer(first) is Verdict.RESTART
    assert follower.offer(first) is (Verdict.TAKE if first == 0 else Verdict.MISSING)


def test_another_engine_at_the_same_numbers_is_noticed_when_it_replays() -> None:
    follower = Follower()
    for number in range(4):
        follower.offer(number, mark=number)
    assert follower.offer(9, mark=9) is Verdict.MISSING
    assert follower.since == 3
    assert follower.replayed(3, mark=33) is Verdict.RESTART
    assert follower.since == 0
    assert [follower.replayed(number, mark=1) for number in (0, 1)] == [Verdict.TAKE] * 2


def test_ranks_have_the_ports_after_each_other() -> None:
    assert sources("tcp://h:5557,tcp://h:6557", 2) == [
        Source("tcp://h:5557", "tcp://h:6557"),
        Source("tcp://h:5558", "tcp://h:6558", 1),
    ]
    assert sources("tcp://h:5557", 1) == [Source("tcp://h:5557")]
    assert sources("ipc:///run/kv", 2)[1] == Source("ipc:///run/kv_dp1", None, 1)


# ── over real sockets ─────────────────────────────────────────────────────────


@asynccontextmanager
async def running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do `work` meanwhile."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class World:
    """A publisher as an engine has it, and a subscriber that writes a cache map."""

    def __init__(self) -> None:
        self.encoding = "map"
        self.publishers: list[Publisher] = []
        self.caches = CacheMap(capacity=10_000, worker_blocks=100)
        self.hearing = Hearing("w", self.caches, lambda: 1000.0)
        self.context = zmq.asyncio.Context()
        self.stream, self.replay = "", ""

    def publisher(self) -> Publisher:
        """A publisher, on the addresses of the one before if there was one."""
        made = Publisher(
            GRANULE, lambda: 0.0, endpoint=self.stream or f"tcp://127.0.0.1:{free_port()}",
            replay=self.replay or f"tcp://127.0.0.1:{free_port()}", encoding=self.encoding,
        )  # fmt: skip
        self.stream, self.replay = made.addresses
        self.publishers.append(made)
        return made

    async def close(self) -> None:
        for publisher in self.publishers:
            await publisher.close()
        self.context.destroy(linger=0)

    def subscriber(self, *, replay: bool = True) -> Subscriber:
        source = Source(self.stream, self.replay if replay else None)
        return Subscriber(self.context, source, vllm.decode, self.hearing)

    def depth(self, tokens: list[int]) -> int:
        return self.caches.depths(keys_of(tokens)).get(self.caches.slot("w"), 0)


@pytest.fixture
async def w(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    # Here publisher and subscriber share a loop, and the one may keep it busy for long.
    monkeypatch.setattr(subscriber, "_REPLAY_SECS", 60.0)
    world = World()
    yield world
    await world.close()


class EngineEvent(msgspec.Struct, tag=True, omit_defaults=True, forbid_unknown_fields=True):
    """vLLM's own events, as vllm/distributed/kv_events.py has them."""


class BlockStored(EngineEvent):
    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[list[str] | None] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None


class BlockRemoved(EngineEvent):
    block_hashes: list[int]
    medium: str | None
    group_idx: int | None = None


class AllBlocksCleared(EngineEvent):
    pass


class EngineBatch(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    ts: float
    events: list[BlockStored | BlockRemoved | AllBlocksCleared]
    data_parallel_rank: int | None = None


async def test_the_simulated_wire_is_byte_for_byte_an_engines(w: World) -> None:
    publisher, listening = w.publisher(), w.context.socket(zmq.SUB)
    listening.setsockopt(zmq.SUBSCRIBE, b"")
    listening.connect(w.stream)
    await eventually(lambda: publisher.subscribers > 0)
    publisher.publish([run_of(some(2)), run_of(some(3, seed=5), 7)], [1, 2])
    publisher.clear()
    for number, kinds in enumerate((["BlockStored", "BlockStored", "BlockRemoved"], ["AllBlocksCleared"])):
        topic, sequence, payload = await listening.recv_multipart()
        assert (topic, int.from_bytes(sequence, "big")) == (b"", number)
        batch = msgspec.msgpack.decode(payload, type=EngineBatch)
        assert [type(event).__name__ for event in batch.events] == kinds
        assert pack(batch) == payload
    listening.close(linger=0)


def run_of(tokens: list[int], first: int = 0) -> Run:
    names = list(range(first + 1, first + 1 + len(tokens) // GRANULE))
    return Run(names, first or None, tokens_of(tokens))


def some(count: int, seed: int = 1) -> list[int]:
    return [(each * seed) % 997 for each in range(count * GRANULE)]


@pytest.mark.parametrize("encoding", ["map", "array"])
async def test_what_was_published_before_and_after_is_known(w: World, encoding: str) -> None:
    w.encoding = encoding
    publisher = w.publisher()
    publisher.publish([run_of(some(3))], [])
    async with running(w.subscriber().run()):
        # Nothing new has to happen for that.
        await eventually(lambda: w.depth(some(3)) == 3)
        await eventually(lambda: publisher.subscribers > 0)
        publisher.publish([run_of(some(5)[3 * GRANULE :], 3)], [])
        await eventually(lambda: w.depth(some(5)) == 5)
        publisher.publish([], [4, 5])
        await eventually(lambda: w.depth(some(5)) == 3)
        assert isinstance(w.caches.view("w"), Exact)
        publisher.clear()
        await eventually(lambda: w.depth(some(5)) == 0)


async def test_an_engine_is_heard_over_ipv6() -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    fleet = world(a=FakeWorker()).fleet(worker_urls=(), tokens="engine")
    publisher = Publisher(GRANULE, lambda: 0.0, endpoint="tcp://[::1]:*")
    async with running(fleet.run()):
        fleet.admit("http://a", kv_events=publisher.addresses[0])
        await eventually(lambda: publisher.subscribers > 0)
        publisher.publish([run_of(some(2))], [])
        await eventually(lambda: fleet.desk.tells("http://a"))
    await publisher.close()


async def test_engines_are_not_heard_where_prompts_are_known_by_their_text(caplog: pytest.LogCaptureFixture) -> None:
    fleet = world(a=FakeWorker(), b=FakeWorker()).fleet(worker_urls=())
    publisher = Publisher(GRANULE, lambda: 0.0, endpoint="tcp://127.0.0.1:*")
    async with running(fleet.run()):
        fleet.admit("http://a", kv_events=publisher.addresses[0])
        await eventually(lambda: "are not listened to" in caplog.text)
        fleet.admit("http://b", kv_events=publisher.addresses[0])
        await eventually(lambda: fleet.registry.get("http://b").healthy)
    assert publisher.subscribers == 0
    assert caplog.text.count("are not listened to") == 1
    await publisher.close()


async def test_an_address_that_cannot_be_is_said_and_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    fleet = world(a=FakeWorker(), b=FakeWorker()).fleet(worker_urls=(), tokens="engine")
    publisher = Publisher(GRANULE, lambda: 0.0, endpoint="tcp://127.0.0.1:*")
    async with running(fleet.run()):
        fleet.admit("http://a", kv_events="ipc:///" + "long" * 100)
        await eventually(lambda: "worker http://a: cache events" in caplog.text)
        fleet.admit("http://b", kv_events=publisher.addresses[0])
        await eventually(lambda: publisher.subscribers > 0)
    await publisher.close()


async def test_of_an_engine_that_tokenises_nothing_nothing_is_believed(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    async def tokenize(url: str, _request: TurnRequest, **_: object) -> bytes:
        asked.append(url)
        raise NotFound("There is no such path.")

    w = world(a=FakeWorker())
    fleet = w.fleet(worker_urls=(), policy="cache_aware", tokens="engine", tokenize=tokenize)
    publisher = Publisher(GRANULE, lambda: 0.0, endpoint="tcp://127.0.0.1:*")
    key, request = RouteKey(tenant="t", model="m"), TurnRequest(model="m", items=(), instructions="x" * 4096)
    async with running(fleet.run()):
        fleet.admit("http://a", kv_events=publisher.addresses[0])
        await eventually(lambda: publisher.subscribers > 0)
        publisher.publish([run_of(some(2))], [])
        await eventually(lambda: fleet.desk.tells("http://a"))
        for _ in range(3):
            # It is known by its text all the same.
            assert (await fleet.chooser.read(key, request)).keys
        assert not fleet.desk.tells("http://a")
        assert asked == ["http://a"]
        assert caplog.text.count("does not tell the tokens") == 1
        w.time += 301
        await fleet.chooser.read(key, request)
        assert asked == ["http://a"] * 2
    await publisher.close()


async def test_a_worker_that_stands_still_keeps_no_turn_waiting_for_its_tokens() -> None:
    asked: list[str] = []

    async def tokenize(url: str, _request: TurnRequest, **_: object) -> bytes:
        asked.append(url)
        if url == "http://a":
            await asyncio.Event().wait()
        return msgspec.json.encode(some(2))

    w = world(a=FakeWorker(), b=FakeWorker())
    fleet = w.fleet(policy="cache_aware", tokens="engine", tokenize=tokenize, health_check_timeout_secs=0.05)
    await fleet.ready()
    key, request = RouteKey(tenant="t", model="m"), TurnRequest(model="m", items=(), instructions="x" * 4096)
    prompts = [await asyncio.wait_for(fleet.chooser.read(key, request), 30) for _ in range(20)]
    assert all(prompt.keys for prompt in prompts)
    # The others are asked meanwhile, and it is asked again.
    assert asked.count("http://a") == 1
    w.time += 11
    for _ in range(20):
        await asyncio.wait_for(fleet.chooser.read(key, request), 30)
    assert asked.count("http://a") == 2


async def test_lost_messages_are_asked_for(w: World) -> None:
    publisher, following = w.publisher(), w.subscriber()
    async with running(following.run()):
        await eventually(lambda: publisher.subscribers > 0)
        publisher.publish([run_of(some(2))], [])
        await eventually(lambda: w.depth(some(2)) == 2)
        publisher.losing = True
        publisher.publish([run_of(some(4)[2 * GRANULE :], 2)], [])
        publisher.losing = False
        publisher.publish([run_of(some(6)[4 * GRANULE :], 4)], [])
        await eventually(lambda: w.depth(some(6)) == 6)
        assert following.follower.gaps == 1


async def test_without_a_replay_what_was_known_is_dropped(w: World) -> None:
    publisher = w.publisher()
    async with running(w.subscriber(replay=False).run()):
        await eventually(lambda: publisher.subscribers > 0)
        publisher.publish([run_of(some(2))], [])
        await eventually(lambda: w.depth(some(2)) == 2)
        publisher.losing = True
        publisher.publish([], [1, 2])
        publisher.losing = False
        publisher.publish([run_of(some(3, seed=5), 10 - 10)], [])
        await eventually(lambda: w.depth(some(3, seed=5)) == 3)
        assert w.depth(some(2)) == 0


async def test_an_engine_that_restarts_is_guessed_until_it_tells(w: World) -> None:
    publisher, following = w.publisher(), w.subscriber()
    async with running(following.run()):
        await eventually(lambda: publisher.subscribers > 0)
        for _ in range(3):
            publisher.publish([run_of(some(2))], [])
        await eventually(lambda: following.follower._live == 2)
        assert w.depth(some(2)) == 2
        await publisher.close()
        await eventually(lambda: not isinstance(w.caches.view("w"), Exact))
        assert w.depth(some(2)) == 0
        publisher = w.publisher()
        await eventually(lambda: publisher.subscribers > 0)
        publisher.publish([run_of(some(1, seed=3))], [])
        await eventually(lambda: w.depth(some(1, seed=3)) == 1)
        assert w.depth(some(2)) == 0


async def test_of_an_engine_that_forgot_its_beginning_the_rest_is_known(w: World) -> None:
    publisher = w.publisher()
    publisher.publish([run_of(some(2))], [])
    for _ in range(10_000):
        publisher.publish([], [99])
    publisher.publish([run_of(some(3, seed=5), 10 - 10)], [])
    async with running(w.subscriber().run()):
        await eventually(lambda: w.depth(some(3, seed=5)) == 3)
        assert w.depth(some(2)) == 0
        await eventually(lambda: publisher.subscribers > 0)
        publisher.publish([], [3])
        await eventually(lambda: w.depth(some(3, seed=5)) == 2)


async def test_an_engine_that_restarted_and_has_overtaken_the_old_one_is_noticed(w: World) -> None:
    publisher, following = w.publisher(), w.subscriber()
    async with running(following.run()):
        await eventually(lambda: publisher.subscribers > 0)
        publisher.publish([run_of(some(2))], [])
        await eventually(lambda: w.depth(some(2)) == 2)
        await publisher.close()
        await eventually(lambda: not isinstance(w.caches.view("w"), Exact))
        publisher = w.publisher()
        publisher.losing = True
        for _ in range(3):
            publisher.publish([run_of(some(1, seed=3))], [])
        publisher.losing = False
        await eventually(lambda: publisher.subscribers > 0)
        publisher.publish([run_of(some(1, seed=7), 7)], [])
        await eventually(lambda: w.depth(some(1, seed=3)) == 1)
        assert w.depth(some(2)) == 0


async def test_one_replica_that_restarts_leaves_what_the_others_hold(w: World) -> None:
    # Older engines do not say which replica it is that speaks.
    first, second = w.publisher(), Publisher(GRANULE, lambda: 0.0, endpoint="tcp://127.0.0.1:*")
    w.publishers.append(second)
    other = Source(second.addresses[0], rank=1)
    following = Subscriber(w.context, other, vllm.decode, w.hearing)
    leading = w.subscriber()
    async with running(leading.run()), running(following.run()):
        await eventually(lambda: first.subscribers > 0 and second.subscribers > 0)
        for publisher in (first, second):
            publisher.publish([run_of(some(2))], [])
        await eventually(lambda: leading.follower.last == following.follower.last == 0)
        assert w.depth(some(2)) == 2
        first.publish([], [2])
        first.publish([Run([21], None, tokens_of(some(1, seed=3)))], [])
        await eventually(lambda: w.depth(some(1, seed=3)) == 1)
        assert w.depth(some(2)) == 2
        w.hearing.void(0)
        assert w.depth(some(2)) == 2
        assert w.depth(some(1, seed=3)) == 0


async def test_an_engine_of_which_nothing_can_be_named_is_guessed(w: World) -> None:
    keys = keys_of(some(2))
    w.caches.view("w").sent(1, keys, 0)
    window = {**STORED, "kv_cache_spec_kind": "sliding_window"}
    w.hearing.heard(vllm.decode(pack({"ts": 0, "events": [window]})))
    w.hearing.heard(Batch([told(some(1), GRANULE, 5, parent=99)]))
    assert w.depth(some(2)) == 2
    w.caches.view("w").ended(1, keys)
    w.hearing.heard(Batch([Cleared()]))
    assert w.depth(some(2)) == 0


@pytest.mark.parametrize("tokens", [[-1] * GRANULE, [2**32] * GRANULE, ["a"] * GRANULE])
async def test_a_message_that_cannot_be_read_voids_what_was_known(w: World, tokens: list[object]) -> None:
    publisher = w.publisher()
    async with running(w.subscriber().run()):
        await eventually(lambda: publisher.subscribers > 0)
        publisher.publish([run_of(some(2))], [])
        await eventually(lambda: w.depth(some(2)) == 2)
        bad = {**STORED, "block_hashes": [1], "token_ids": tokens, "block_size": GRANULE}
        publisher.send([bad])  # type: ignore[list-item]
        await eventually(lambda: w.depth(some(2)) == 0)
        publisher.publish([run_of(some(1, seed=3))], [])
        await eventually(lambda: w.depth(some(1, seed=3)) == 1)


async def test_what_is_told_wrongly_is_not_believed_for_a_while(w: World) -> None:
    now = 1000.0
    hearing = Hearing("w", w.caches, lambda: now)
    hearing.heard(Batch([told(some(2), GRANULE)]))
    assert w.depth(some(2)) == 2
    hearing.distrust()
    assert w.depth(some(2)) == 0
    hearing.heard(Batch([Stored([3], 2, some(3)[2 * GRANULE :], GRANULE)]))
    assert w.depth(some(3)) == 0
    now += 301.0
    hearing.heard(Batch([]))
    assert w.depth(some(3)) == 3
