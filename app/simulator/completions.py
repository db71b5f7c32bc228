"""POST /v1/completions: text that goes on after text, or after token ids, for one prompt or several."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.dialects.openai_responses.faults import read
from app.simulator import faults, rules
from app.simulator.faults import Stream
from app.simulator.http import Exchange
from app.simulator.inputs import inputs
from app.simulator.reply import Reply
from app.simulator.wire import Message, completion_request
from app.simulator.worker import SimulatedWorker, Turn
from app.turn.errors import InvalidRequest

_json = msgspec.json.Encoder().encode
_DEFAULT_LIMIT = 16


async def complete(worker: SimulatedWorker, exchange: Exchange, body: bytes) -> None:
    """Answer one request. Raises `GatewayError` for one that cannot be answered."""
    request = read(completion_request, body)
    worker.ensure_model(request.model)
    if request.n is not None and request.n != 1:
        raise InvalidRequest("The simulated worker gives one choice.", param="n")
    prompts = inputs(request.prompt, "prompt")
    if request.stream and len(prompts) != 1:
        raise InvalidRequest("A stream is of one prompt.", param="prompt")
    fault = worker.faults.draw()
    if await faults.refused(exchange, fault):
        return
    limit = _DEFAULT_LIMIT if request.max_tokens is None else request.max_tokens
    turns = [await worker.begin("cmpl", request, each.tokens, _reply(worker, each.text), limit) for each in prompts]
    echoed = [each.text if request.echo else "" for each in prompts]
    if request.stream:
        stream = _chunks(turns[0], echoed[0], with_usage=request.with_usage)
        await faults.perform(exchange, turns[0].work, stream, fault)
        return
    for turn in turns:
        async for _ in turn.work.ready():
            pass
    await faults.spoil(exchange, _whole(turns, echoed), fault)


def _reply(worker: SimulatedWorker, text: str) -> Reply:
    scripted = worker.script.reply([Message("user", text)])
    return Reply(rules.said(text) if scripted is None else scripted.text)


def _whole(turns: Sequence[Turn], echoed: Sequence[str]) -> bytes:
    choices = [
        {
            "index": index,
            "text": echo + turn.output.body("text"),
            "logprobs": None,
            "finish_reason": turn.output.finish,
        }
        for index, (turn, echo) in enumerate(zip(turns, echoed, strict=True))
    ]
    first = turns[0]
    head = {"id": first.id, "object": "text_completion", "created": first.created, "model": first.model}
    prompt, said = sum(turn.prompt for turn in turns), sum(len(turn.output) for turn in turns)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        "prompt_tokens_details": {"cached_tokens": sum(turn.work.cached_tokens for turn in turns)},
    }
    return _json({**head, "choices": choices, "usage": usage})


def _chunks(turn: Turn, echo: str, *, with_usage: bool) -> Stream:
    head = {"id": turn.id, "object": "text_completion", "created": turn.created, "model": turn.model}
    stem = b"data: " + _json(head)[:-1] + b',"choices":['
    start = stem + b'{"index":0,"text":'
    end = b',"logprobs":null,"finish_reason":null}]}\n\n'
    frames = [
        start + _json(piece) + end if piece else b"" for segment in turn.output.segments for piece in segment.pieces()
    ]
    finish = start + b'"","logprobs":null,"finish_reason":' + _json(turn.output.finish) + b"}]}\n\n"
    usage = stem + b'],"usage":' + turn.usage + b"}\n\n" if with_usage else b""
    return Stream(start + _json(echo) + end if echo else b"", frames, finish + usage + b"data: [DONE]\n\n")
