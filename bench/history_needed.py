"""The part of a turn that no storage can save: the bytes of its context."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import msgspec

from app.dialects.openai_chat.call import Quirks, encode_request
from app.dialects.openai_responses.decode import to_items
from app.responses.ports import StoredItem
from app.routing.prompts import PromptBook
from app.turn.request import TurnRequest
from bench.history_shapes import TEXT

ROUNDS = 15


def needed(name: str, context: Sequence[StoredItem], depth: int) -> None:
    """What nobody can do without: the context's JSON copied once. And what is done: a request for the worker, and the
    hashes of its prompt, all of them, as for a conversation that the router does not know."""
    raws = [each.raw for each in context]
    copied, written, hashed, body, hashes = list[float](), list[float](), list[float](), b"", 0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        body = msgspec.json.encode(raws)
        copied.append((time.perf_counter() - began) * 1000)
        began = time.perf_counter()
        turn = TurnRequest(model="bench", items=to_items(context))
        request = encode_request(turn, "bench", Quirks())
        written.append((time.perf_counter() - began) * 1000)
        assert len(request) > len(context) * len(TEXT)
        began = time.perf_counter()
        hashes = len(PromptBook().read(turn).keys)
        hashed.append((time.perf_counter() - began) * 1000)
    print(
        f"{name:9} needed depth {depth:5}  {len(body)} B copied in {statistics.median(copied):8.2f} ms,"
        f"  made a request in {statistics.median(written):8.2f} ms,"
        f"  {hashes} hashes in {statistics.median(hashed):8.2f} ms"
    )
