"""POST /v1/embeddings: vectors that are near each other when the texts share words.

Each word is hashed to a place and a sign and counted there (the hashing trick), and the vector is brought to length 1.
"""

from __future__ import annotations

import base64
import math
import re
from array import array

import msgspec
from xxhash import xxh3_64_intdigest

from app.dialects.openai_responses.faults import read
from app.simulator import faults
from app.simulator.http import Exchange
from app.simulator.inputs import inputs
from app.simulator.wire import embedding_request
from app.simulator.worker import SimulatedWorker
from app.turn.errors import InvalidRequest

_WORD = re.compile(r"\w+")
_LARGEST = 8192


async def embed(worker: SimulatedWorker, exchange: Exchange, body: bytes) -> None:
    """Answer one request. Raises `GatewayError` for one that cannot be answered."""
    request = read(embedding_request, body)
    worker.ensure_model(request.model)
    given = inputs(request.input, "input")
    size = worker.settings.embedding_size if request.dimensions is None else request.dimensions
    if not 1 <= size <= _LARGEST:
        raise InvalidRequest(f"'dimensions' is from 1 to {_LARGEST}, not {size}.", param="dimensions")
    fault = worker.faults.draw()
    if await faults.refused(exchange, fault):
        return
    packed = request.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _packed(vector(text, size)) if packed else list(vector(text, size)),
        }
        for index, text in enumerate(each.text for each in given)
    ]
    tokens = sum(len(each.tokens) for each in given)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "model": request.model, "data": data, "usage": usage}
    await faults.spoil(exchange, msgspec.json.encode(answer), fault)


def vector(text: str, size: int) -> array[float]:
    """The vector of a text: `size` numbers, of length 1."""
    sums = [0.0] * size
    for word in _WORD.findall(text.lower()) or [text]:
        digest = xxh3_64_intdigest(word.encode("utf-8", "replace"))
        sums[digest % size] += 1.0 if digest >> 63 else -1.0
    length = math.sqrt(sum(value * value for value in sums))
    if length == 0:
        # Words that cancel each other out still have a direction.
        sums[0] = length = 1.0
    return array("f", [value / length for value in sums])


def _packed(numbers: array[float]) -> str:
    return base64.b64encode(numbers.tobytes()).decode()
