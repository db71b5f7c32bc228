"""Turns at a worker: the worker is a real server, scripted to the byte."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw

from app.backends.errors import NO_ANSWER, may_retry_elsewhere
from app.backends.settings import BackendSettings
from app.backends.workers import Workers
from app.turn.errors import Failure
from app.turn.events import Delta, ItemDone, TextDelta, TurnDone, TurnEvent, TurnFailed
from app.turn.ids import CountedIds
from app.turn.items import Message, Opaque, Text, ToolCall, ToolSpec
from app.turn.request import Sampling, TurnRequest
from app.turn.usage import Usage
from tests.support.raw_http import OK, STREAM_HEAD, Peer, RawServer, answering, chunked, get, raw_server, sized, sse
from tests.support.waiting import eventually

HELLO = (Message("user", (Text("Hello"),)),)
SETTINGS = BackendSettings(request_timeout_secs=60, keepalive_secs=60)

HI = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}},
    "[DONE]",
]
SAID_HI = [TextDelta("Hi"), ItemDone(Message("assistant", (Text("Hi"),))), TurnDone("stop", Usage(3, 0, 1))]


@asynccontextmanager
async def workers(settings: BackendSettings = SETTINGS) -> AsyncGenerator[Workers]:
    made = Workers(settings, CountedIds())
    try:
        yield made
    finally:
        await made.close()


async def turn(
    behave: Callable[[Peer], Awaitable[None]], settings: BackendSettings = SETTINGS, **request: Any
) -> tuple[list[TurnEvent], RawServer]:
    """The events of a turn at a worker that behaves so, and the worker. Two of three deltas are taken as they are
    heard, which must not change their order."""
    events: list[TurnEvent] = []
    offered = 0

    def hear(delta: Delta) -> bool:
        nonlocal offered
        offered += 1
        if offered % 3:
            events.append(delta)
        return bool(offered % 3)

    async with raw_server(behave) as server, workers(settings) as made:
        backend = made.connect(server.url)
        asked = TurnRequest(**{"model": "m", "items": HELLO, **request})
        async for event in backend.stream(asked, hear):
            events.append(event)
        return events, server


def failure_of(events: list[TurnEvent]) -> Failure:
    last = events[-1]
    assert isinstance(last, TurnFailed)
    assert not any(isinstance(event, TurnDone | TurnFailed) for event in events[:-1])
    return last.failure


# ── turns that go well ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "pieces",
    [
        [STREAM_HEAD + chunked(sse(*HI))],
        [STREAM_HEAD, *(chunked(sse(each), end=False) for each in HI), chunked()],
        [STREAM_HEAD, *(chunked(bytes([byte]), end=False) for byte in sse(*HI)), chunked()],
        [STREAM_HEAD, chunked(b": keepalive\n\n", sse(*HI).replace(b"\n", b"\r\n"))],
        [sized(sse(*HI), b"content-type: text/event-stream; charset=utf-8")],
        [sized(sse(*HI[:-1]), b"content-type: text/event-stream")],  # no [DONE]
        [sized(sse(*HI))],  # no content-type
    ],
)
async def test_a_stream(pieces: list[bytes]) -> None:
    events, server = await turn(answering(*pieces))
    assert events == SAID_HI
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert json.loads(body)["stream"] is True


WHOLE = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


@pytest.mark.parametrize(
    "pieces",
    [
        [sized(json.dumps(WHOLE).encode(), b"content-type: application/json")],
        [sized(b"\n  " + json.dumps(WHOLE, indent=1).encode())],
        [
            OK + b"transfer-encoding: chunked\r\n\r\n",
            *(chunked(bytes([b]), end=False) for b in json.dumps(WHOLE).encode()),
            chunked(),
        ],
    ],
)
async def test_an_engine_that_does_not_stream(pieces: list[bytes]) -> None:
    events, _ = await turn(answering(*pieces))
    assert events == SAID_HI


async def test_a_call_gets_an_id_when_it_has_none() -> None:
    call = {"index": 0, "function": {"name": "add", "arguments": "{}"}}
    chunks = [{"choices": [{"delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}, "[DONE]"]
    events, _ = await turn(answering(sized(sse(*chunks))), tools=(ToolSpec("add", Raw(b"{}")),))
    assert ItemDone(ToolCall("call_1", "add", "{}")) in events


async def test_logprobs_come_when_they_are_asked_for() -> None:
    logprobs = {"content": [{"token": "Hi", "logprob": -0.5}]}
    chunks = [{"choices": [{"delta": {"content": "Hi"}, "logprobs": logprobs, "finish_reason": "stop"}]}, "[DONE]"]
    asked, _ = await turn(answering(sized(sse(*chunks))), sampling=Sampling(top_logprobs=0))
    unasked, _ = await turn(answering(sized(sse(*chunks))))
    assert isinstance(asked[0], TextDelta)
    assert asked[0].logprobs is not None
    assert unasked[0] == TextDelta("Hi")


async def test_a_worker_has_its_own_key_and_its_own_name_for_the_model() -> None:
    async with raw_server(answering(sized(sse(*HI)))) as server, workers() as made:
        backend = made.connect(f"{server.url}/v1/", model="theirs", api_key="s3cret")
        assert [event async for event in backend.stream(TurnRequest(model="ours", items=HELLO))] == SAID_HI
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions ")
    assert b"\r\nauthorization: Bearer s3cret" in head
    assert json.loads(body)["model"] == "theirs"
    assert "s3cret" not in repr(backend.__dict__["_site"])


async def test_a_connection_serves_turn_after_turn() -> None:
    async with raw_server(answering(STREAM_HEAD, chunked(sse(*HI), end=False), chunked())) as server, workers() as made:
        backend = made.connect(server.url)
        for _ in range(5):
            async with aclosing(backend.stream(TurnRequest(model="m", items=HELLO))) as events:
                async for event in events:
                    if isinstance(event, TurnDone):
                        break  # as the runner does
            # The end comes after what says that it comes.
            await eventually(lambda: len(made._plain._pool) == 1)
        assert server.connections == 1


async def test_events_come_as_they_are_said() -> None:
    go = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(sse(HI[0]), end=False))
        await go.wait()
        await peer.send(chunked(sse(*HI[1:])))

    async with raw_server(behave) as server, workers() as made:
        stream = made.connect(server.url).stream(TurnRequest(model="m", items=HELLO))
        assert await anext(stream) == TextDelta("Hi")
        go.set()
        assert [event async for event in stream] == SAID_HI[1:]


async def test_items_the_model_cannot_see_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    items = (*HELLO, Opaque("computer_call", Raw(b"{}")))
    with caplog.at_level(logging.WARNING):
        await turn(answering(sized(sse(*HI))), items=items)
    assert "computer_call" in caplog.text


# ── turns that do not ─────────────────────────────────────────────────────────


def status(code: int, body: Any) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return sized(content, status=f"HTTP/1.1 {code} Whatever\r\n".encode())


def engine_error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", **fields}}


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (status(400, engine_error("No.", code="bad")), Failure(400, "bad", "No.")),
        (status(400, engine_error("No.", code=400)), Failure(400, "upstream_rejected", "No.")),
        (status(400, b""), Failure(400, "upstream_rejected", "The worker refused the request with status 400.")),
        (
            status(400, engine_error("The maximum context length is 5.")),
            Failure(400, "context_length_exceeded", "The maximum context length is 5."),
        ),
        (
            status(500, engine_error("The input is longer than the model can take: context length 5")),
            Failure(400, "context_length_exceeded", "The input is longer than the model can take: context length 5"),
        ),
        (
            status(401, engine_error("Bad key sk-123.")),
            Failure(502, "upstream_unauthorized", "The worker does not accept the gateway's credentials."),
        ),
        (
            status(403, b"Forbidden"),
            Failure(502, "upstream_unauthorized", "The worker does not accept the gateway's credentials."),
        ),
        (status(404, engine_error("No model.", code="model_not_found")), Failure(404, "model_not_found", "No model.")),
        (status(422, {"detail": "No."}), Failure(422, "upstream_rejected", "No.")),
        (status(429, engine_error("Slow down.")), Failure(429, "rate_limit_exceeded", "Slow down.")),
        (status(500, b"Internal Server Error"), Failure(502, "upstream_error", "Internal Server Error")),
        (status(500, b"<html>nginx</html>"), Failure(502, "upstream_error", "The worker failed with status 500.")),
        (status(502, b""), Failure(502, "upstream_error", "The worker failed with status 502.")),
        (status(503, engine_error("Loading.")), Failure(503, "upstream_overloaded", "Loading.")),
        (status(504, b""), Failure(504, "upstream_timeout", "The worker took too long.")),
        (status(302, b""), Failure(502, "upstream_invalid", "The worker answered with the unexpected status 302.")),
        (status(204, b"").replace(b"content-length: 0\r\n", b""), None),
        (sized(json.dumps(engine_error("Boom.")).encode()), Failure(502, "upstream_error", "Boom.")),
        (sized(sse(engine_error("Boom.", code=400))), Failure(400, "upstream_rejected", "Boom.")),
        (sized(sse(engine_error("Boom.", code="server_error"))), Failure(502, "upstream_error", "Boom.")),
        (sized(sse("{")), None),
        (sized(b"{"), None),
        (sized(b"[]"), NO_ANSWER),
        (sized(b""), NO_ANSWER),
        (sized(b"<html>Welcome</html>", b"content-type: text/html"), NO_ANSWER),
        (sized(gzip.compress(sse(*HI)), b"content-encoding: gzip"), NO_ANSWER),
        (sized(b'{"choices": []}'), Failure(502, "upstream_invalid", "The worker's answer holds no finished choice.")),
    ],
)
async def test_failures(answer: bytes, failure: Failure | None) -> None:
    events, server = await turn(answering(answer))
    assert len(events) == 1
    told = failure_of(events)
    if failure is None:
        assert (told.status, told.code) == (502, "upstream_invalid")
    else:
        assert told == failure
    assert server.url not in told.message


@pytest.mark.parametrize("done", [b"", sse("[DONE]")])
async def test_a_stream_that_is_cut_keeps_what_was_said(done: bytes) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(sse(HI[0]) + done, end=bool(done)))
        peer.close()

    events, _ = await turn(behave)
    assert events[0] == TextDelta("Hi")
    assert failure_of(events).code == "upstream_stream_cut"
    assert len(events) == 2


async def test_an_error_in_the_middle_keeps_what_was_said() -> None:
    events, _ = await turn(answering(sized(sse(HI[0], engine_error("Boom.", code=500)))))
    assert events == [TextDelta("Hi"), TurnFailed(Failure(502, "upstream_error", "Boom."))]


async def test_broken_json_in_the_middle_keeps_what_was_said() -> None:
    events, _ = await turn(answering(sized(sse(HI[0], '{"choices": [{"del'))))
    assert events[0] == TextDelta("Hi")
    assert failure_of(events).code == "upstream_invalid"


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        (BackendSettings(max_event_bytes=2000), sized(b"data: " + b"x" * 3000)),
        (BackendSettings(max_answer_bytes=2000), sized(sse(*HI[:1] * 50))),
        (BackendSettings(max_answer_bytes=2000), sized(b"{" + b" " * 3000 + b"}")),
    ],
)
async def test_an_answer_has_limits(settings: BackendSettings, answer: bytes) -> None:
    events, _ = await turn(answering(answer), settings)
    assert failure_of(events).code == "upstream_invalid"


async def test_a_worker_that_is_away() -> None:
    async with raw_server(answering()) as server:
        url = server.url
    async with workers() as made:
        [event] = [event async for event in made.connect(url).stream(TurnRequest(model="m", items=HELLO))]
    assert event == TurnFailed(
        Failure(502, "upstream_unreachable", "The worker cannot be reached: connection refused.")
    )


async def test_a_worker_that_hangs() -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(sized(b""))
        await peer.request()
        await peer.gone()

    async with raw_server(behave) as server, workers(BackendSettings(request_timeout_secs=0.1)) as made:
        # The short time is for the turn, not for connecting.
        (await made.send(get(server.url))).release()
        events = [event async for event in made.connect(server.url).stream(TurnRequest(model="m", items=HELLO))]
        assert server.connections == 1
    assert events == [TurnFailed(Failure(504, "upstream_timeout", "The worker took longer than 0.1 seconds."))]


async def test_text_that_cannot_be_sent() -> None:
    events, server = await turn(answering(), items=(Message("user", (Text("\ud800"),)),))
    assert failure_of(events).status == 400
    assert server.connections == 0


async def test_leaving_a_turn_aborts_it_at_the_worker() -> None:
    gone = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD, chunked(sse(HI[0]), end=False))
        await peer.gone()
        gone.set()

    async with raw_server(behave) as server, workers() as made:
        async with aclosing(made.connect(server.url).stream(TurnRequest(model="m", items=HELLO))) as events:
            assert await anext(events) == TextDelta("Hi")
        async with asyncio.timeout(30):
            await gone.wait()


@pytest.mark.parametrize("said", [False, True])
async def test_cancelling_a_turn_aborts_it_at_the_worker(said: bool) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        if said:
            await peer.send(STREAM_HEAD, chunked(sse(HI[0]), end=False))
        asked.set()
        await peer.gone()
        gone.set()

    async with raw_server(behave) as server, workers() as made:
        backend = made.connect(server.url)

        async def run() -> None:
            async with aclosing(backend.stream(TurnRequest(model="m", items=HELLO))) as events:
                async for _ in events:
                    pass

        task = asyncio.create_task(run())
        await asked.wait()
        task.cancel()
        async with asyncio.timeout(30):
            await asyncio.gather(task, return_exceptions=True)
            await gone.wait()
        assert task.cancelled()


@pytest.mark.parametrize(
    ("status", "code", "retry"),
    [
        (502, "upstream_unreachable", True),
        (504, "upstream_connect_timeout", True),
        (502, "upstream_error", True),
        (502, "upstream_invalid", True),
        (502, "upstream_unauthorized", True),
        (503, "upstream_overloaded", True),
        (429, "rate_limit_exceeded", True),
        (408, "upstream_rejected", True),
        (504, "upstream_timeout", False),
        (400, "context_length_exceeded", False),
        (404, "model_not_found", False),
        (422, "upstream_rejected", False),
    ],
)
def test_what_another_worker_may_do_better(status: int, code: str, retry: bool) -> None:
    assert may_retry_elsewhere(Failure(status, code, "")) is retry
