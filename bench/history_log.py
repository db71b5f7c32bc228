"""What the log of runs costs: events a second, commits, and the first events of a resumed stream."""

from __future__ import annotations

import asyncio
import json
import os
import time

from app.db.engine import Database
from app.dialects.openai_responses.events import Event
from app.history.events import SqlEventStore
from app.history.runs import SqlRunStore
from app.history.seal import Sealer
from app.history.settings import HistorySettings
from app.history.store import SqlHistoryStore
from app.history.wakes import Wakes
from app.responses.ports import Entry, NewRun, Tail
from app.turn.errors import GatewayError
from app.turn.events import TextDelta
from app.turn.ids import RandomIds


class Deaf:
    """A witness that only counts."""

    def __init__(self) -> None:
        self.count = 0

    def durable(self, events: list[Event]) -> None:
        self.count += len(events)

    def broken(self, error: GatewayError) -> None:
        raise error


async def log(name: str, database: Database, sealer: Sealer) -> None:
    """Events a second into the log, commits they took, and the first byte of a resumed stream."""
    settings, wakes = HistorySettings(), Wakes(database)
    store = SqlHistoryStore(database, RandomIds(), sealer)
    events = SqlEventStore(database, sealer, wakes, 1.0)
    runs = SqlRunStore(database, store, events, sealer, wakes, settings, os.urandom(8).hex())
    data = json.dumps(
        {
            "type": "response.output_text.delta",
            "sequence_number": 0,
            "item_id": "msg_" + "0" * 32,
            "output_index": 0,
            "content_index": 0,
            "delta": " sheep",
            "logprobs": [],
        }
    ).encode()
    for count, total in ((1, 2000), (64, 400)):
        tails = []
        for k in range(count):
            new = NewRun(
                tenant="bench", response_id=f"resp_{name}{count}_{k}", background=True, created_at=0, request=b"{}"
            )
            lease = await runs.begin(new, Entry((), ()), waiting=False)
            tails.append(runs.tail(lease, (Entry((), ()),), Deaf()))
        commits, cpu, began = runs.journal.commits, time.process_time(), time.perf_counter()
        for number in range(total):
            for tail in tails:
                tail.put(
                    TextDelta(" sheep"),
                    [Event(number, "response.output_text.delta", data.replace(b'r": 0', b'r": %d' % number))],
                )
                if tail.full:
                    await tail.flush()
            await asyncio.sleep(0)
        await asyncio.gather(*(tail.flush() for tail in tails))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        print(
            f"{name:9} log: {count:3} runs  {count * total / wall:9.0f} events/s"
            f"  {cpu / count / total * 1e6:6.1f} us cpu each  {runs.journal.commits - commits} commits"
        )
        began = time.perf_counter()
        stream = events.follow("bench", f"resp_{name}{count}_0", total - 10)
        await anext(stream)
        print(f"{name:9} resume: first events after {(time.perf_counter() - began) * 1000:.2f} ms")
        await stream.aclose()
    await paced(name, tails[0], runs, total)


async def paced(name: str, tail: Tail, runs: SqlRunStore, total: int) -> None:
    """The commits of one model that says a hundred tokens a second."""
    data, began = b'{"type":"x","sequence_number":0}', time.perf_counter()
    commits = runs.journal.commits
    for number in range(100):
        tail.put(TextDelta("x"), [Event(total + number, "response.output_text.delta", data)])
        await asyncio.sleep(0.01)
    await tail.flush()
    print(f"{name:9} paced: 100 tokens in {time.perf_counter() - began:.2f} s {runs.journal.commits - commits} commits")
