"""`/v1/responses` over HTTP: plain, streamed, read, deleted, paged, refused; and what a lost client means."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest

from app.dialects.openai_responses.encode import Event
from app.turn.errors import Unavailable
from tests.support.waiting import eventually
from tests.unit.api.api_world import World, error, event, seen, within

ASK = {"model": "m", "input": "hi"}
STREAM = {**ASK, "stream": True}


async def test_a_plain_answer() -> None:
    world = World()
    world.responses.run.finished.set_result(b'{"id":"resp_1"}')
    async with world.client() as client:
        answer = await client.post(
            "/v1/responses", json=ASK, headers={"content-type": "application/json; charset=utf-8"}
        )
    assert seen(answer) == (200, {"id": "resp_1"})
    assert answer.headers["content-type"] == "application/json"
    tenant, request = world.responses.asked[0]
    assert (tenant, request.model) == ("default", "m")


async def test_a_stream_has_frames_comments_and_an_end() -> None:
    world = World(keepalive_secs=0.02)
    run = world.responses.run
    run.log.append([event(0, "response.created"), event(1, "response.in_progress")])
    async with world.listening() as port, httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}/v1/responses"
        async with client.stream("POST", url, json=STREAM) as answer:
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert answer.headers["cache-control"] == "no-cache"
            assert answer.headers["x-accel-buffering"] == "no"
            lines = answer.aiter_lines()
            assert [await within(anext(lines)) for _ in range(6)][0::3] == [
                "event: response.created",
                "event: response.in_progress",
            ]
            assert await within(anext(lines)) == ": keepalive"
            run.log.append([event(2, "response.completed")])
            run.log.close()
            rest = [line async for line in lines if line and not line.startswith(":")]
    assert rest[0] == "event: response.completed"
    assert rest[-1] == "data: [DONE]"
    assert not run.detached.is_set()


async def test_who_has_the_end_is_told_that_nothing_follows_and_who_has_more_that_it_is_not_there() -> None:
    world = World()
    run = world.responses.run
    run.log.append([event(0, "response.created"), event(1, "response.completed")])
    run.log.close()
    async with world.client() as client:
        told = [
            (await client.get("/v1/responses/resp_1", params={"stream": "true", "starting_after": number})).text
            for number in (0, 1, 2)
        ]
    assert told[0].startswith("event: response.completed\n")
    assert told[0].endswith("data: [DONE]\n\n")
    assert told[1] == "data: [DONE]\n\n"
    assert told[2].startswith("event: error\n")
    last = json.loads(told[2].partition("data: ")[2])
    assert (last["sequence_number"], last["param"]) == (3, "starting_after")
    assert last["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("asked", [True, False, None])
async def test_a_stream_is_padded_as_it_is_asked_or_as_the_operator_says(padded: bool, asked: bool | None) -> None:
    world = World(padded=padded)
    world.responses.run.log.append([event(0, "response.created"), event(1, "response.output_text.delta")])
    world.responses.run.log.close()
    options = {} if asked is None else {"stream_options": {"include_obfuscation": asked}}
    query = {} if asked is None else {"include_obfuscation": asked}
    async with world.client() as client:
        made = await client.post("/v1/responses", json={**STREAM, **options})
        read = await client.get("/v1/responses/resp_1", params={"stream": True, **query})
    wanted = padded if asked is None else asked
    assert [b'"obfuscation":"' in each.content for each in (made, read)] == [wanted, wanted]


async def test_a_stream_without_an_end_does_not_claim_one() -> None:
    world = World()
    world.responses.run.log.append([event(0, "response.created")])
    world.responses.run.log.close()
    async with world.client() as client:
        answer = await client.post("/v1/responses", json=STREAM)
    assert "response.created" in answer.text
    assert "[DONE]" not in answer.text


async def test_a_stream_that_cannot_go_on_says_so_where_either_contract_looks() -> None:
    world = World()

    async def broken(_after: int = -1) -> AsyncIterator[Sequence[Event]]:
        yield [event(0, "response.created")]
        raise Unavailable("The log cannot be read.")

    world.responses.run.follow = broken
    async with world.client() as client:
        answer = await client.post("/v1/responses", json=STREAM)
    last = json.loads(answer.text.rsplit("data: ", 1)[1])
    said = {"code": last["code"], "message": "The log cannot be read.", "param": None}
    assert last == {"type": "error", "sequence_number": 1, **said, "error": {"type": "server_error", **said}}


@pytest.mark.parametrize("ask", [ASK, STREAM])
async def test_a_client_that_leaves_detaches_and_disturbs_nothing(ask: dict[str, object]) -> None:
    world = World()
    run = world.responses.run
    async with world.listening() as port, httpx.AsyncClient(trust_env=False) as client:
        asking = asyncio.create_task(client.post(f"http://127.0.0.1:{port}/v1/responses", json=ask))
        await eventually(lambda: bool(world.responses.asked))
        asking.cancel()
        await within(run.detached.wait())
        run.log.append([event(0, "response.created")])
        run.log.close()
        run.finished.set_result(b"{}")
        assert (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200


async def test_reading_and_deleting() -> None:
    async with World().client() as client:
        assert seen(await client.get("/v1/responses/resp_1")) == (200, {"id": "resp_1"})
        deleted = {"id": "resp_1", "object": "response", "deleted": True}
        assert seen(await client.delete("/v1/responses/resp_1")) == (200, deleted)
        gone = error(404, "Response with id 'resp_2' not found.", "invalid_request_error")
        assert seen(await client.get("/v1/responses/resp_2")) == gone
        assert seen(await client.delete("/v1/responses/resp_2")) == gone


async def test_a_page_of_input_items() -> None:
    world = World()
    async with world.client() as client:
        answer = await client.get("/v1/responses/resp_1/input_items")
        await client.get("/v1/responses/resp_1/input_items?limit=2&order=asc&after=x")
    data = [{"id": "b"}, {"id": "a"}]
    assert seen(answer) == (
        200,
        {"object": "list", "data": data, "first_id": "b", "last_id": "a", "has_more": True},
    )
    assert world.responses.asked == [("default", "resp_1", 20, "desc", None), ("default", "resp_1", 2, "asc", "x")]


async def test_while_draining_nothing_new_is_begun() -> None:
    world = World()
    world.state = type(world.state)(draining=True, healthy_workers=1, workers=2, runs=1)
    async with world.client() as client:
        answer = await client.post("/v1/responses", json=ASK)
        assert (await client.get("/v1/responses/resp_1")).status_code == 200
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "server_shutting_down"
    assert answer.headers["retry-after"] == "5"
    assert world.responses.asked == []


TOO_LARGE = error(413, "The request body is larger than 100 bytes.", "invalid_request_error", None, "request_too_large")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large(chunked: bool) -> None:
    world = World(max_body=100)
    body = b'{"model":"m","input":"' + b"x" * 300_000 + b'"}'

    async def pieces() -> object:
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    headers = {"content-type": "application/json"}
    async with world.listening() as port, httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}/v1/responses"
        answer = await client.post(url, content=pieces() if chunked else body, headers=headers)
    assert ("content-length" in answer.request.headers) is not chunked
    assert seen(answer) == TOO_LARGE
    assert world.responses.asked == []


async def test_a_body_of_the_largest_size_is_read() -> None:
    body = b'{"model":"m","input":"hi"}'
    world = World(max_body=len(body))
    world.responses.run.finished.set_result(b"{}")
    async with world.client() as client:
        headers = {"content-type": "application/json"}
        assert (await client.post("/v1/responses", content=body, headers=headers)).status_code == 200
        assert (await client.post("/v1/responses", content=body + b" ", headers=headers)).status_code == 413


async def test_a_client_that_asks_first_is_told_before_it_sends() -> None:
    async with World(max_body=100).listening() as port:

        def ask() -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
                raw.sendall(
                    b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                    b"expect: 100-continue\r\ncontent-length: 1000\r\n\r\n"
                )
                return raw.recv(4096)

        assert (await within(asyncio.to_thread(ask))).startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_leaves_in_the_middle_of_its_body() -> None:
    world = World()
    async with world.listening() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
        writer.write(b"content-length: 1000\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200
    assert world.responses.asked == []
