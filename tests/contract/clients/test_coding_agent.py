"""A coding agent's traffic: 60 kB, tools in the input, nothing stored; over HTTP and over a WebSocket."""

from __future__ import annotations

import json
from typing import Any

import httpx
from websockets.asyncio.client import connect

from app.dialects.openai_responses.check import check_events, check_sse
from tests.support.coding_agent import message, request, rules, tools

HEADERS = {"openai-beta": "responses_websockets=2026-02-06", "x-openai-internal-codex-responses-lite": "true"}
# The simulated model calls tools by the one flat name that a model is shown.
RUN = message("user", 'functions__exec {"input": "ls"}')


def told(data: bytes) -> list[dict[str, Any]]:
    assert not check_sse(data)
    lines = [line[6:] for line in data.splitlines() if line.startswith(b"data: {")]
    return [json.loads(line) for line in lines]


def output_of(call: dict[str, Any]) -> dict[str, Any]:
    parts = [{"type": "input_text", "text": "sheep.txt"}]
    return {"type": "custom_tool_call_output", "call_id": call["call_id"], "output": parts}


def call_in(response: dict[str, Any]) -> dict[str, Any]:
    call = next(item for item in response["output"] if item["type"] == "custom_tool_call")
    assert (call["name"], call["namespace"]) == ("exec", "functions")
    return call


def test_over_http(shepherd: str) -> None:
    first = request(tools(), rules(), RUN)
    assert len(json.dumps(first)) > 60_000
    with httpx.Client(base_url=f"{shepherd}/v1", trust_env=False, timeout=60, headers=HEADERS) as client:
        ended = told(client.post("/responses", json=first).content)[-1]["response"]
        assert ended["status"] == "completed", ended
        call = call_in(ended)
        again = request(tools(), rules(), RUN, *ended["output"], output_of(call))
        ended = told(client.post("/responses", json=again).content)[-1]["response"]
    assert ended["status"] == "completed", ended
    assert "sheep.txt" in json.dumps(ended["output"])


async def test_over_a_socket(shepherd: str) -> None:
    url = shepherd.replace("http", "ws", 1) + "/v1/responses"
    async with connect(url, additional_headers=HEADERS, proxy=None) as socket:

        async def turn(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
            await socket.send(json.dumps({"type": "response.create", **request(*items, **more)}))
            events = [json.loads(await socket.recv())]
            while events[-1]["type"] not in {"response.completed", "response.failed", "error"}:
                events.append(json.loads(await socket.recv()))
            assert events[-1]["type"] == "response.completed", events[-1]
            assert not check_events(events)
            return events[-1]["response"]

        warm = await turn(tools(), rules(), generate=False)
        assert warm["output"] == []
        first = await turn(RUN, previous_response_id=warm["id"])
        call = call_in(first)
        second = await turn(output_of(call), previous_response_id=first["id"])
        assert "sheep.txt" in json.dumps(second["output"])
        third = await turn({"type": "compaction_trigger"}, previous_response_id=second["id"])
        assert [item["type"] for item in third["output"]] == ["compaction"]
