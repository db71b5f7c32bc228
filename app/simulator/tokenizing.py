"""POST /tokenize and /detokenize, as vLLM has them."""

from __future__ import annotations

import msgspec

from app.dialects.openai_responses.faults import read
from app.simulator.http import Exchange
from app.simulator.inputs import tokens_from
from app.simulator.prompt import render
from app.simulator.tokens import decode, encode
from app.simulator.wire import detokenize_request, tokenize_request
from app.simulator.worker import SimulatedWorker
from app.turn.errors import InvalidRequest


async def tokenize(worker: SimulatedWorker, exchange: Exchange, body: bytes) -> None:
    """The tokens of a prompt, or of messages as the model would see them. Raises `GatewayError`."""
    request = read(tokenize_request, body)
    if request.model is not None:
        worker.ensure_model(request.model)
    if request.prompt is not None:
        tokens = encode(request.prompt)
    elif request.messages is not None:
        tokens = render(request.messages, request.tools or (), to_continue=request.add_generation_prompt)
    else:
        raise InvalidRequest("Give a 'prompt' or 'messages'.", param="prompt")
    answer = {"count": len(tokens), "max_model_len": worker.settings.max_model_len, "tokens": tokens.tolist()}
    await exchange.answer(msgspec.json.encode(answer))


async def detokenize(worker: SimulatedWorker, exchange: Exchange, body: bytes) -> None:
    """The text of tokens. Raises `GatewayError`."""
    request = read(detokenize_request, body)
    if request.model is not None:
        worker.ensure_model(request.model)
    text = decode(tokens_from(request.tokens, "tokens"))
    await exchange.answer(msgspec.json.encode({"prompt": text}))
