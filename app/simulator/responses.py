"""POST /v1/responses: the Responses API of an engine that speaks it, without history and without tools of its own.

Nothing new is said here. The request becomes the chat request that asks the same, and the answer is told by the encoder
the gateway uses, so what a client sees of a worker and of the gateway differs only in what they can do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from app.dialects.openai_chat.call import Quirks, encode_request
from app.dialects.openai_responses import decode
from app.dialects.openai_responses.encode import DONE, Event, ResponseEncoder, frame
from app.dialects.openai_responses.faults import read
from app.dialects.openai_responses.wire import CreateResponse
from app.simulator import chat, faults
from app.simulator.faults import Stream
from app.simulator.http import Exchange
from app.simulator.output import Segment
from app.simulator.wire import ChatRequest, chat_request
from app.simulator.worker import SimulatedWorker, Turn
from app.turn.errors import InvalidRequest
from app.turn.events import CallDelta, Finish, ItemDone, LoopEvent, ReasoningDelta, TextDelta
from app.turn.ids import RandomIds
from app.turn.items import Message, Reasoning, Text, ToolCall
from app.turn.usage import Usage


class Told(Struct, frozen=True):
    """A turn as the events of a response."""

    first: list[Event]
    for_tokens: list[list[Event]]
    last: list[Event]


async def create(worker: SimulatedWorker, exchange: Exchange, body: bytes) -> None:
    """Answer one request. Raises `GatewayError` for one that cannot be answered."""
    ids = RandomIds()
    request = decode.decode_create(body)
    asked = _as_chat(request, ids)
    admitted = await chat.admit(worker, exchange, asked, "resp")
    if admitted is None:
        return
    turn = admitted.turn
    encoder = ResponseEncoder(response_id=ids.new("resp"), created_at=turn.created, request=request, ids=ids)
    told = _told(encoder, turn, admitted.call_ids, int(worker.now()))
    if request.stream:
        frames = [_frames(events) for events in told.for_tokens]
        stream = Stream(_frames(told.first), frames, _frames(told.last) + DONE)
        await faults.perform(exchange, turn.work, stream, admitted.fault)
    else:
        await faults.perform_whole(exchange, turn.work, encoder.body, admitted.fault)


def _as_chat(request: CreateResponse, ids: RandomIds) -> ChatRequest:
    """The chat request that asks the same. Raises `InvalidRequest`."""
    if request.previous_response_id is not None:
        raise InvalidRequest("The simulated worker keeps no history.", param="previous_response_id")
    tools = decode.read_tools(request.tools)
    if tools.servers or tools.hosted:
        raise InvalidRequest("The simulated worker calls no tools itself.", param="tools")
    items = decode.to_items(decode.input_items(request, ids))
    decode.check_pairing(items, items)
    turn, _ = decode.turn_request(request, items, tools)
    return read(chat_request, encode_request(turn, request.model, Quirks()))


def _told(encoder: ResponseEncoder, turn: Turn, call_ids: Sequence[str], now: int) -> Told:
    first = encoder.start()
    identities = iter(call_ids)
    for_tokens: list[list[Event]] = []
    segments = turn.output.segments
    for segment in segments:
        identity = next(identities) if segment.kind == "call" and segment.name else ""
        of_segment = [_fed(encoder, said) for said in _said(segment, identity)]
        # The last one of an answer that was cut off has no end; who closes the response ends it.
        if segment is not segments[-1] or turn.output.finish != "length":
            of_segment[-1].extend(encoder.feed(_done(segment, identity)))
        for_tokens.extend(of_segment)
    finish = _finish(turn)
    last = encoder.close(finish)
    encoder.settle(finish, now)
    terminal = encoder.terminal()
    return Told(first, for_tokens, [*last, terminal] if terminal is not None else last)


def _said(segment: Segment, identity: str) -> Iterator[list[LoopEvent]]:
    """What each token of a segment says. A call is announced by the last token of its lead."""
    for index, piece in enumerate(segment.pieces()):
        if segment.kind == "call":
            announced = bool(segment.name) and index >= len(segment.lead) - 1
            yield [CallDelta(identity, segment.name, piece)] if announced else []
        elif not piece:
            yield []
        else:
            yield [TextDelta(piece) if segment.kind == "text" else ReasoningDelta(piece)]


def _done(segment: Segment, identity: str) -> ItemDone:
    match segment.kind:
        case "text":
            return ItemDone(Message("assistant", (Text(segment.body),)))
        case "reasoning":
            return ItemDone(Reasoning(segment.body))
        case "call":
            return ItemDone(ToolCall(identity, segment.name, segment.body))


def _finish(turn: Turn) -> Finish:
    made = turn.output
    usage = Usage(turn.prompt, turn.work.cached_tokens, len(made), made.reasoning_tokens)
    if made.finish == "length":
        return Finish("incomplete", usage, reason="max_output_tokens")
    return Finish("completed", usage)


def _fed(encoder: ResponseEncoder, said: Sequence[LoopEvent]) -> list[Event]:
    return [event for each in said for event in encoder.feed(each)]


def _frames(events: Sequence[Event]) -> bytes:
    return b"".join(map(frame, events))
