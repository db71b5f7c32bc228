"""POST /v1/chat/completions: a turn, whole or as a stream of chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import msgspec
from msgspec import Struct, structs

from app.dialects.openai_responses.faults import read
from app.simulator import faults, rules
from app.simulator.faults import Stream
from app.simulator.http import Exchange
from app.simulator.output import Segment
from app.simulator.prompt import render
from app.simulator.reply import Fault, Reply
from app.simulator.wire import ChatRequest, chat_request
from app.simulator.worker import SimulatedWorker, Turn, call_ids, with_fault
from app.turn.errors import InvalidRequest

_json = msgspec.json.Encoder().encode
_DONE = b"data: [DONE]\n\n"


class Admitted(Struct, frozen=True):
    """A turn in the engine, the ids of its calls, and what will go wrong with it."""

    turn: Turn
    call_ids: Sequence[str]
    fault: Fault


async def complete(worker: SimulatedWorker, exchange: Exchange, body: bytes) -> None:
    """Answer one request. Raises `GatewayError` for one that cannot be answered."""
    request = read(chat_request, body)
    admitted = await admit(worker, exchange, request, "chatcmpl")
    if admitted is None:
        return
    turn, ids = admitted.turn, admitted.call_ids
    if request.stream:
        stream = Stream(*_chunks(turn, ids, with_usage=request.with_usage))
        await faults.perform(exchange, turn.work, stream, admitted.fault)
    else:
        await faults.perform_whole(exchange, turn.work, lambda: _whole(turn, ids), admitted.fault)


async def admit(worker: SimulatedWorker, exchange: Exchange, request: ChatRequest, kind: str) -> Admitted | None:
    """Begin to answer a request; None when it was left hanging. `kind` begins its id. Raises `GatewayError`."""
    _check(worker, request)
    reply = _reply(worker, request)
    fault = reply.fault or worker.faults.draw()
    if await faults.refused(exchange, fault):
        return None
    prompt = render(request.messages, request.tools or ())
    turn = await worker.begin(kind, request, prompt, with_fault(reply, fault), request.limit)
    return Admitted(turn, call_ids(prompt, len(turn.output.calls)), fault)


def _check(worker: SimulatedWorker, request: ChatRequest) -> None:
    """Raises `GatewayError` for a request this worker cannot answer."""
    worker.ensure_model(request.model)
    if not request.messages:
        raise InvalidRequest("There is nothing to answer: 'messages' is empty.", param="messages")
    if request.n is not None and request.n != 1:
        raise InvalidRequest("The simulated worker gives one choice.", param="n")


def _reply(worker: SimulatedWorker, request: ChatRequest) -> Reply:
    """What the model says: what the script tells, or else the rules."""
    scripted = worker.script.reply(request.messages)
    reply = rules.answer(request) if scripted is None else scripted
    if worker.reasons(request.model) and not reply.reasoning:
        reply = structs.replace(reply, reasoning=rules.thought(reply))
    return reply


def _whole(turn: Turn, ids: Sequence[str]) -> bytes:
    made = turn.output
    calls = [
        {"id": identity, "type": "function", "function": {"name": call.name, "arguments": call.body}}
        for identity, call in zip(ids, made.calls, strict=True)
    ]
    text = made.body("text")
    message: dict[str, object] = {"role": "assistant", "content": text if text or not calls else None}
    if thoughts := made.body("reasoning"):
        message["reasoning_content"] = thoughts
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": made.finish}
    head = {"id": turn.id, "object": "chat.completion", "created": turn.created, "model": turn.model}
    return _json({**head, "choices": [choice], "usage": msgspec.Raw(turn.usage)})


def _chunks(turn: Turn, ids: Sequence[str], *, with_usage: bool) -> tuple[bytes, list[bytes], bytes]:
    """The frames of a turn: its head, one for each token, and its tail."""
    head = {"id": turn.id, "object": "chat.completion.chunk", "created": turn.created, "model": turn.model}
    stem = b"data: " + _json(head)[:-1] + b',"choices":['
    start = stem + b'{"index":0,"delta":'
    end = b',"logprobs":null,"finish_reason":null}]}\n\n'
    identities = iter(ids)
    index = 0
    frames: list[bytes] = []
    for segment in turn.output.segments:
        if segment.kind == "call" and segment.name:
            deltas = _call_deltas(segment, index, next(identities))
            index += 1
        else:
            deltas = _text_deltas(segment)
        frames.extend(start + delta + end if delta else b"" for delta in deltas)
    finish = start + b'{},"logprobs":null,"finish_reason":' + _json(turn.output.finish) + b"}]}\n\n"
    usage = stem + b'],"usage":' + turn.usage + b"}\n\n" if with_usage else b""
    return start + b'{"role":"assistant","content":""}' + end, frames, finish + usage + _DONE


def _text_deltas(segment: Segment) -> Iterator[bytes]:
    field = b'{"content":' if segment.kind == "text" else b'{"reasoning_content":'
    if segment.kind == "call":
        return iter([b""] * len(segment))
    return (field + _json(piece) + b"}" if piece else b"" for piece in segment.pieces())


def _call_deltas(segment: Segment, index: int, identity: str) -> Iterator[bytes]:
    """The name comes with the last token of the lead, the arguments piece by piece after it."""
    place = b'{"tool_calls":[{"index":%d' % index
    named = place + b',"id":' + _json(identity) + b',"type":"function","function":{"name":' + _json(segment.name)
    silent = [b""] * (len(segment.lead) - 1)
    pieces = segment.pieces()[len(segment.lead) :]
    said = (place + b',"function":{"arguments":' + _json(piece) + b"}}]}" if piece else b"" for piece in pieces)
    return chain(silent, [named + b',"arguments":""}}]}'], said)
