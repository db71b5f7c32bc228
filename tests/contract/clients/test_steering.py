"""Steering a real gateway: by a bare client whose whole connection is judged, and by the openai SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from websockets.asyncio.client import ClientConnection, connect

from app.dialects.openai_responses.check_socket import SocketCheck
from tests.contract.clients.sluice import Sluice, sluice
from tests.support.processes import gateway, simulator

LONG = "Say 4000 words."
ENDS = {"response.completed", "response.failed", "response.incomplete"}
CALL = f'look {{"where": "{"here and there, " * 9}"}}'
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def model() -> Iterator[Sluice]:
    """A model that takes its time, and may be interrupted for longer once it has begun."""
    with (
        simulator("--token-ms", "5", "--models", "simulated", "simulated-reasoning") as worker,
        sluice(worker, b"/v1/chat/completions", lets=8) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, model: Sluice) -> Iterator[str]:
    """A gateway before it; it remembers little of what is not stored."""
    directory = tmp_path_factory.mktemp("slow")
    env = {"SHEPHERD__RESPONSES__SOCKET_KEPT_BYTES": "20000"}
    with gateway(directory, "--worker-urls", model.url, env=env) as url:
        yield url


class Talk:
    """A connection, and all that was heard on it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.heard: list[dict[str, Any]] = []

    async def ask(self, **fields: Any) -> None:
        await self._socket.send(json.dumps({"type": "response.create", "model": "simulated", **fields}))

    async def steer(self, response_id: str, given: Any, **more: Any) -> None:
        frame = {"type": "response.steer", "previous_response_id": response_id, "input": given, **more}
        await self._socket.send(json.dumps(frame))

    async def until(self, *kinds: str) -> dict[str, Any]:
        """The next event of one of these types."""
        while True:
            async with asyncio.timeout(30):
                self.heard.append(json.loads(await self._socket.recv()))
            if self.heard[-1]["type"] in kinds:
                return self.heard[-1]

    async def begun(self, kind: str = "response.output_text.delta", **fields: Any) -> str:
        """The id of a response that is being made, and has come to an event of this type."""
        await self.ask(**fields)
        created = await self.until("response.created", "error")
        await self.until(kind)
        return created["response"]["id"]

    async def end(self) -> dict[str, Any]:
        """The next response that ends."""
        return (await self.until(*ENDS))["response"]


@pytest.fixture
async def http(slow: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{slow}/v1", timeout=30) as made:
        yield made


@pytest.fixture
async def talk(slow: str) -> AsyncIterator[Talk]:
    async with connect(slow.replace("http", "ws", 1) + "/v1/responses", proxy=None, max_size=None) as socket:
        talk = Talk(socket)
        yield talk
        await socket.close()
        check = SocketCheck()
        for frame in talk.heard:
            check.feed(frame)
        check.finish()
        assert check.violations == []


def text(response: dict[str, Any]) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content") or ())


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("lane", [{}, {"stream_id": "a"}])
async def test_a_text_is_cut_and_the_next_response_answers(talk: Talk, store: bool, lane: dict[str, str]) -> None:
    first = await talk.begun(input=LONG, store=store, temperature=0.5, **lane)
    await talk.steer(first, "Say something else.")
    accepted = await talk.until("response.steer.accepted")
    assert accepted["steer"]["previous_response_id"] == first
    cut = await talk.end()
    assert (cut["id"], cut["status"], cut["incomplete_details"]) == (first, "incomplete", {"reason": "steered"})
    assert [item["status"] for item in cut["output"]] == ["incomplete"]
    after = await talk.end()
    assert (after["previous_response_id"], after["status"], after["temperature"]) == (first, "completed", 0.5)
    assert text(after) == "You said: Say something else."
    assert {event.get("stream_id") for event in talk.heard} == {lane.get("stream_id")}


async def test_what_was_said_is_part_of_the_stored_context(talk: Talk, http: httpx.AsyncClient) -> None:
    first = await talk.begun(input=LONG)
    part = {"type": "input_text", "text": "One more thing."}
    await talk.steer(first, [{"role": "user", "content": [part]}, {"type": "message", "role": "user", "content": "!"}])
    await talk.steer(first, "And another.")
    await talk.end()
    after = await talk.end()
    page = await http.get(f"/responses/{after['id']}/input_items", params={"order": "asc"})
    listed = page.json()["data"]
    assert [item["role"] for item in listed] == ["user", "assistant", "user", "user", "user"]
    assert [item["content"][0]["text"] for item in listed[2:]] == ["One more thing.", "!", "And another."]
    assert (await http.get(f"/responses/{first}")).json()["incomplete_details"] == {"reason": "steered"}


async def test_a_thought_is_cut_too(talk: Talk) -> None:
    first = await talk.begun("response.reasoning_text.delta", model="simulated-reasoning", input=LONG, store=False)
    await talk.steer(first, "Stop.")
    assert (await talk.end())["incomplete_details"] == {"reason": "steered"}
    assert text(await talk.end()).endswith("You said: Stop.")


async def test_a_call_of_the_gateways_is_finished_first(talk: Talk, demo_mcp: str) -> None:
    with sluice(demo_mcp, b"tools/call") as server, server.shut():
        demo = {"type": "mcp", "server_label": "demo", "server_url": server.url, "require_approval": "never"}
        first = await talk.begun("response.mcp_call.in_progress", input='add {"a": 1, "b": 2}', tools=[demo])
        await talk.steer(first, "Never mind.")
        await talk.until("response.steer.accepted")
    cut = await talk.end()
    assert [item["type"] for item in cut["output"]] == ["mcp_list_tools", "mcp_call"]
    assert cut["output"][1]["status"] == "completed"
    assert cut["incomplete_details"] == {"reason": "steered"}
    after = await talk.end()
    assert after["tools"][0]["server_label"] == "demo"
    assert text(after) == "You said: Never mind."
    assert [item["type"] for item in after["output"]] == ["message"]


@pytest.mark.parametrize("store", [True, False])
async def test_what_waits_for_the_clients_results_comes_with_them(talk: Talk, model: Sluice, store: bool) -> None:
    asked = {"input": CALL, "tools": [LOOK], "store": store, "stream_id": "a"}
    with model.shut():
        first = await talk.begun("response.function_call_arguments.delta", **asked)
        await talk.steer(first, "Look closely.")
        await talk.until("response.steer.accepted")
    done = await talk.end()
    assert done["status"] == "completed"
    waits = await talk.until("response.steer.pending")
    call = done["output"][0]["call_id"]
    stub = {"type": "function_call_output", "call_id": call, "name": "look"}
    assert (waits["reason"], waits["required_input"]) == ("waiting_for_required_input", [stub])
    await talk.steer(first, "Too late.")
    assert (await talk.until("response.steer.failed"))["error"]["code"] == "response_already_completed"
    result = {"type": "function_call_output", "call_id": call, "output": "a sheep"}
    await talk.ask(previous_response_id=first, input=[result], store=store, stream_id="a")
    after = await talk.end()
    assert text(after) == "You said: Look closely."


async def test_what_waits_for_an_approval_comes_with_it(talk: Talk, model: Sluice, demo_mcp: str) -> None:
    demo = {"type": "mcp", "server_label": "demo", "server_url": demo_mcp, "require_approval": "always"}
    call = 'slow {"seconds": 0.4, "steps": 2}'
    with model.shut():
        first = await talk.begun("response.mcp_list_tools.completed", input=f"add {{}} {call}", tools=[demo])
        await talk.steer(first, "Hurry.")
        await talk.until("response.steer.accepted")
    ended = await talk.end()
    if ended["status"] == "completed":
        stubs = (await talk.until("response.steer.pending"))["required_input"]
        assert {stub["type"] for stub in stubs} == {"mcp_approval_response"}
        answers = [{**stub, "approve": False} for stub in stubs]
        await talk.ask(previous_response_id=first, input=answers, tools=[demo])
    assert "Hurry." in text(await talk.end())


async def test_a_response_that_cannot_be_gone_on_from_gives_back_what_was_said(talk: Talk) -> None:
    first = await talk.begun(input=f"{LONG} {'x' * 30_000}", store=False)
    await talk.steer(first, "More.")
    assert (await talk.end())["incomplete_details"] == {"reason": "steered"}
    back = await talk.until("response.steer.failed")
    assert (back["error"]["code"], back["steer"]["input"]) == ("successor_creation_failed", "More.")
    assert back["steer"]["id"].startswith("steer_")


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ([], "input"),
        (7, "input"),
        ([{"role": "system", "content": "x"}], "input[0].role"),
        ([{"role": "user"}], "input[0].content"),
        ([{"role": "user", "content": "x", "id": "msg_1"}], "input[0].id"),
        ([{"role": "user", "content": "x"}, {"type": "function_call_output"}], "input[1].type"),
        ([{"role": "user", "content": [{"type": "output_text", "text": "x"}]}], "input[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "input_text"}]}], "input[0].content[0].text"),
    ],
)
async def test_what_cannot_be_said_is_named(talk: Talk, given: Any, param: str) -> None:
    first = await talk.begun(input=LONG, store=False)
    await talk.steer(first, given)
    back = await talk.until("response.steer.failed")
    assert (back["error"]["code"], back["error"]["param"]) == ("invalid_input", param)
    assert back["steer"] == {"previous_response_id": first, "input": given}
    await talk.steer(first, "Enough.")
    await talk.end()
    await talk.end()


async def test_the_lane_is_the_responses_own(talk: Talk) -> None:
    first = await talk.begun(input=LONG, store=False, stream_id="a")
    await talk.steer(first, "x", stream_id="a")
    assert (await talk.until("response.steer.failed"))["error"]["param"] == "stream_id"
    await talk.steer(first, "x")
    await talk.end()
    await talk.end()


async def test_where_there_is_no_steering(talk: Talk, model: Sluice, http: httpx.AsyncClient) -> None:
    conversation = (await http.post("/conversations", json={})).json()["id"]
    compaction = [{"type": "compaction", "compact_threshold": 100_000}]
    for fields in ({"conversation": conversation}, {"context_management": compaction}):
        with model.shut():
            first = await talk.begun(input="Say 60 words.", **fields)
            await talk.steer(first, "x")
            assert (await talk.until("response.steer.failed"))["error"]["code"] == "steering_not_supported"
        assert (await talk.end())["status"] == "completed"


async def test_no_more_waits_than_there_is_room_for(talk: Talk, model: Sluice) -> None:
    asked = {"input": CALL, "tools": [LOOK], "store": False}
    with model.shut():
        first = await talk.begun("response.function_call_arguments.delta", **asked)
        for number in range(17):
            await talk.steer(first, str(number))
        assert (await talk.until("response.steer.failed"))["error"]["code"] == "too_many_pending_steers"
    for _ in range(16):
        await talk.until("response.steer.pending")


async def test_the_sdk_steers(slow: str) -> None:
    async with (
        openai.AsyncOpenAI(base_url=f"{slow}/v1", api_key="none") as client,
        client.responses.connect() as connection,
    ):
        await connection.response.create(model="simulated", input=LONG, store=False)
        first, kinds = "", list[str]()
        async for event in connection:
            if event.type == "response.created":
                first = first or event.response.id
            if event.type == "response.content_part.added" and event.type not in kinds:
                await connection.response.steer(previous_response_id=first, input="Say something else.")
            kinds.append(event.type)
            if event.type == "response.incomplete":
                assert event.response.incomplete_details is not None
                assert event.response.incomplete_details.reason == "steered"
            if event.type == "response.completed":
                assert event.response.output_text == "You said: Say something else."
                assert event.response.previous_response_id == first
                break
        assert kinds.count("response.steer.accepted") == 1
