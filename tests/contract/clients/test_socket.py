"""The WebSocket of a real gateway: a bare client, the openai SDK, openai-agents, and a coding agent's habits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from agents import Agent, OpenAIResponsesWSModel, Runner, set_tracing_disabled
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.dialects.openai_responses.check import check_events
from tests.support.open_responses import faults
from tests.support.processes import gateway, simulator

set_tracing_disabled(True)
MODEL = "simulated"


@pytest.fixture
def address(shepherd: str) -> str:
    return shepherd.replace("http", "ws", 1) + "/v1/responses"


@pytest.fixture
async def socket(address: str) -> AsyncIterator[ClientConnection]:
    headers = {"openai-beta": "responses_websockets=2026-02-06"}
    async with connect(address, additional_headers=headers, proxy=None) as made:
        yield made


async def ask(socket: ClientConnection, **fields: Any) -> None:
    await socket.send(json.dumps({"type": "response.create", "model": MODEL, **fields}))


async def hear(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(60):
        return json.loads(await socket.recv())


async def answer(socket: ClientConnection) -> list[dict[str, Any]]:
    """All events of one response."""
    events = [await hear(socket)]
    while events[-1]["type"] not in {"response.completed", "response.failed", "response.incomplete", "error"}:
        events.append(await hear(socket))
    if events[-1]["type"] != "error":
        assert not check_events(events)
    return events


async def made(socket: ClientConnection, **fields: Any) -> dict[str, Any]:
    """The finished response."""
    await ask(socket, **fields)
    events = await answer(socket)
    assert events[-1]["type"] == "response.completed", events[-1]
    return events[-1]["response"]


async def refused(socket: ClientConnection, **fields: Any) -> dict[str, Any]:
    await ask(socket, **fields)
    return _error((await answer(socket))[-1])


def _error(event: dict[str, Any]) -> dict[str, Any]:
    assert faults("WebSocketErrorEvent", event) == []
    return {"status": event["status"], **event["error"]}


def text(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content") or ())


# ── chains ────────────────────────────────────────────────────────────────────


async def test_a_response_that_is_not_stored_can_be_gone_on_from_on_its_connection(
    socket: ClientConnection, address: str, client: openai.OpenAI
) -> None:
    first = await made(socket, input="My name is Dolly.", store=False)
    second = await made(socket, input="echo?", store=False, previous_response_id=first["id"])
    third = await made(socket, input="and?", store=False, previous_response_id=second["id"])
    # Every turn has the ones before it in its prompt.
    tokens = [each["usage"]["input_tokens"] for each in (first, second, third)]
    assert tokens == sorted(set(tokens))
    async with connect(address, proxy=None) as other:
        error = await refused(other, input="x", store=False, previous_response_id=first["id"])
    assert (error["status"], error["code"], error["param"]) == (
        400,
        "previous_response_not_found",
        "previous_response_id",
    )
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first["id"])


async def test_a_stored_response_is_gone_on_from_anywhere(
    socket: ClientConnection, address: str, client: openai.OpenAI
) -> None:
    first = await made(socket, input="My name is Dolly.")
    assert client.responses.retrieve(first["id"]).status == "completed"
    async with connect(address, proxy=None) as other:
        second = await made(other, input="x", previous_response_id=first["id"], store=False)
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]


async def test_what_is_not_stored_cannot_become_part_of_what_is(socket: ClientConnection) -> None:
    first = await made(socket, input="secret", store=False)
    error = await refused(socket, input="x", previous_response_id=first["id"])
    assert (error["status"], error["param"]) == (400, "store")


async def test_a_failed_turn_forgets_what_it_went_on_from(socket: ClientConnection) -> None:
    first = await made(socket, input="Hello", store=False)
    call = {"type": "function_call_output", "call_id": "call_unknown", "output": "x"}
    error = await refused(socket, input=[call], store=False, previous_response_id=first["id"])
    assert (error["status"], error["param"]) == (400, "input")
    error = await refused(socket, input="again", store=False, previous_response_id=first["id"])
    assert error["code"] == "previous_response_not_found"


# ── warm-up ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("store", [False, True])
async def test_a_warm_up_is_complete_at_once_and_can_be_gone_on_from(socket: ClientConnection, store: bool) -> None:
    await ask(socket, input=[{"role": "developer", "content": "Be brief."}], store=store, generate=False)
    events = await answer(socket)
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]
    warm = events[-1]["response"]
    assert warm["output"] == []
    plain = await made(socket, input="Hello", store=store)
    after = await made(socket, input="Hello", store=store, previous_response_id=warm["id"])
    assert after["usage"]["input_tokens"] > plain["usage"]["input_tokens"]


async def test_a_warm_up_needs_no_input(socket: ClientConnection) -> None:
    warm = await made(socket, store=False, generate=False)
    assert text(await made(socket, input="Hello", store=False, previous_response_id=warm["id"]))


# ── lanes ─────────────────────────────────────────────────────────────────────


async def test_lanes_answer_under_their_names_and_each_in_order(socket: ClientConnection) -> None:
    for turn in range(3):
        for lane in ("a", "b.c", None):
            await ask(socket, input=f"{lane}{turn}", store=False, **({"stream_id": lane} if lane else {}))
    heard: dict[str | None, list[dict[str, Any]]] = {"a": [], "b.c": [], None: []}
    ends = 0
    while ends < 9:
        event = await hear(socket)
        heard[event.get("stream_id")].append(event)
        ends += event["type"] == "response.completed"
    for events in heard.values():
        numbers = [event["sequence_number"] for event in events]
        starts = [index for index, number in enumerate(numbers) if number == 0]
        assert len(starts) == 3
        for begin, end in zip(starts, [*starts[1:], len(events)], strict=True):
            assert not check_events(events[begin:end])


async def test_a_lane_forks_from_what_another_said(socket: ClientConnection) -> None:
    first = await made(socket, input="Hello", store=False, stream_id="one")
    second = await made(socket, input="x", store=False, stream_id="two", previous_response_id=first["id"])
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]


# ── what cannot be acted on ───────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("frame", "code", "param"),
    [
        (b"\x00\x01", "invalid_frame", None),
        ("no json", "invalid_json", None),
        ("[1]", "invalid_type", None),
        ("{}", "missing_required_parameter", "type"),
        ('{"type":"response.cancel"}', "invalid_value", "type"),
        ('{"type":"response.create","input":"x"}', "missing_required_parameter", "model"),
        ('{"type":"response.create","model":"simulated"}', "missing_required_parameter", "input"),
        ('{"type":"response.create","model":"simulated","input":"x","wool":1}', "unknown_parameter", "wool"),
        ('{"type":"response.create","model":"simulated","input":"x","background":true}', "invalid_value", "background"),
        ('{"type":"response.create","model":"simulated","input":"x","stream":false}', "invalid_value", "stream"),
        ('{"type":"response.create","model":"simulated","input":"x","stream_id":"a b"}', "invalid_value", "stream_id"),
        ('{"type":"response.steer","input":"x"}', "missing_required_parameter", "previous_response_id"),
    ],
)
async def test_a_bad_frame_is_answered_and_costs_nothing_else(
    socket: ClientConnection, frame: str | bytes, code: str, param: str | None
) -> None:
    await socket.send(frame)
    error = _error(await hear(socket))
    assert (error["status"], error["code"], error["param"]) == (400, code, param)
    assert text(await made(socket, input="Hello", store=False))


async def test_an_unknown_model_is_named_on_its_lane(socket: ClientConnection) -> None:
    await ask(socket, model="sheep", input="x", stream_id="a")
    event = await hear(socket)
    assert (event["status"], event["error"]["code"], event["stream_id"]) == (404, "model_not_found", "a")


async def test_a_frame_too_large_ends_the_connection(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("small")
    with simulator() as worker, gateway(directory, "--worker-urls", worker, "--max-payload-size", "10000") as url:
        async with connect(url.replace("http", "ws", 1) + "/v1/responses", proxy=None) as socket:
            await ask(socket, input="x" * 10_001)
            with pytest.raises(ConnectionClosed) as closed:
                await hear(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_a_page_of_another_origin_may_not_connect(address: str) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(address, origin="https://wolf.example", proxy=None):
            pass
    assert refusal.value.response.status_code == 403


@pytest.mark.parametrize(
    ("given", "code"),
    [("more", "response_already_completed"), ([], "invalid_input"), ([{"role": "system"}], "invalid_input")],
)
async def test_steering_is_declined_in_its_own_words(socket: ClientConnection, given: Any, code: str) -> None:
    first = await made(socket, input="Hello", store=False, stream_id="a")
    steer = {"type": "response.steer", "previous_response_id": first["id"], "input": given}
    await socket.send(json.dumps(steer))
    event = await hear(socket)
    assert (event["type"], event["error"]["code"]) == ("response.steer.failed", code)
    assert event["steer"] == {"previous_response_id": first["id"], "input": given}
    assert event["stream_id"] == "a"


async def test_steering_what_is_not_here(socket: ClientConnection) -> None:
    await socket.send(json.dumps({"type": "response.steer", "previous_response_id": "resp_1", "input": "x"}))
    assert (await hear(socket))["error"]["code"] == "response_not_found"


# ── manners ───────────────────────────────────────────────────────────────────


async def test_padding_and_the_other_contract(address: str) -> None:
    headers = {"x-shepherd-profile": "openresponses"}
    async with connect(address, additional_headers=headers, proxy=None) as socket:
        await ask(socket, model="simulated-reasoning", input="x", stream_options={"include_obfuscation": True})
        events = await answer(socket)
    kinds = {event["type"] for event in events}
    assert "response.reasoning.delta" in kinds
    assert all("obfuscation" in event for event in events if event["type"].endswith(".delta"))


# ── clients ───────────────────────────────────────────────────────────────────


async def test_the_sdk_connects(shepherd: str) -> None:
    async with (
        openai.AsyncOpenAI(base_url=f"{shepherd}/v1", api_key="none") as client,
        client.responses.connect() as connection,
    ):
        await connection.response.create(model=MODEL, input="Hello", stream_id="a")
        texts: list[str] = []
        async for event in connection:
            if event.type == "response.output_text.delta":
                texts.append(event.delta)
            if event.type == "response.completed":
                assert event.response.output_text == "".join(texts)
                assert event.stream_id == "a"
                break
        await connection.response.create(model=MODEL, previous_response_id="resp_none", input="x")
        event = await connection.recv()
        assert event.type == "error"
        assert event.error.code == "previous_response_not_found"


def test_the_blocking_sdk_connects(client: openai.OpenAI) -> None:
    with client.responses.connect() as connection:
        connection.response.create(model=MODEL, input="Hello")
        for event in connection:
            if event.type == "response.completed":
                assert event.response.output_text
                break


async def test_agents_over_a_socket(shepherd: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{shepherd}/v1", api_key="none") as client:
        model = OpenAIResponsesWSModel(model=MODEL, openai_client=client)
        result = await Runner.run(Agent(name="Dog", model=model), "Hello")
        assert result.final_output
        await model.close()
