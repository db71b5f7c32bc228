"""Whatever a gateway says in a test is judged when it has ended. Here: that the judge finds what is wrong.

What is broken on purpose was said by a real gateway, and is legal before.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.processes import process
from tests.support.recording import RECORD_TO, Recorder
from tests.support.transcripts import faults_in

ASKED = {"model": "simulated-reasoning", "input": "Hello"}
SSE = "text/event-stream; charset=utf-8"


class Said:
    """A transcript in the making."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lines: list[str] = []
        self._numbers = 0

    def answer(self, method: str, path: str, body: bytes | str, kind: str = SSE, query: str = "") -> None:
        """An answer over HTTP."""
        text = body if isinstance(body, str) else body.decode("latin-1")
        self._exchange([method, path, query], ["began", [200, kind]], ["body", text], ["ended", None])

    def socket(self, *frames: object) -> None:
        """What was said on a socket."""
        self._exchange(["SOCKET", "/v1/responses", ""], *(["frame", json.dumps(frame)] for frame in frames))

    def _exchange(self, asked: list[str], *lines: list[Any]) -> None:
        number = self._numbers
        self._numbers += 1
        self._lines += [json.dumps([number, "asked", asked]), *(json.dumps([number, *line]) for line in lines)]

    def faults(self) -> list[str]:
        (self._directory / "1.transcript").write_text("\n".join(self._lines))
        return faults_in(self._directory)


@pytest.fixture
def said(tmp_path: Path) -> Said:
    return Said(tmp_path)


@pytest.fixture(scope="module")
def stream(shepherd: str) -> str:
    """A whole stream."""
    return httpx.post(f"{shepherd}/v1/responses", json={**ASKED, "stream": True}, timeout=30).text


@pytest.fixture(scope="module")
def events(stream: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.split("\n") if line.startswith("data: {")]


@pytest.fixture(scope="module")
def body(shepherd: str) -> dict[str, Any]:
    return httpx.post(f"{shepherd}/v1/responses", json=ASKED, timeout=30).json()


def blocks(stream: str) -> list[str]:
    return stream.removesuffix("\n\n").split("\n\n")


def joined(parts: list[str]) -> str:
    return "".join(f"{part}\n\n" for part in parts)


def test_what_is_legal_is_not_objected_to(
    said: Said, stream: str, events: list[dict[str, Any]], body: dict[str, Any]
) -> None:
    response_id = events[0]["response"]["id"]
    said.answer("POST", "/v1/responses", stream)
    said.answer("GET", f"/v1/responses/{response_id}", stream, query="stream=true")
    said.answer("GET", f"/v1/responses/{response_id}", joined(blocks(stream)[5:]), query="stream=true&starting_after=4")
    said.answer("POST", "/v1/responses", json.dumps(body), "application/json")
    said.socket(*({**event, "stream_id": "a"} for event in events))
    assert said.faults() == []


def test_no_event_can_be_left_out_or_said_twice(said: Said, stream: str) -> None:
    parts = blocks(stream)
    for index in range(len(parts)):
        for without in (parts[:index] + parts[index + 1 :], parts[: index + 1] + parts[index:]):
            alone = Said(said._directory)
            alone.answer("POST", "/v1/responses", joined(without))
            assert alone.faults(), f"{index} of {len(parts)}"


BREAKS: dict[str, tuple[Callable[[str], str], str]] = {
    "the end of a stream": (lambda text: text[:-4], "in the middle of an event"),
    "a name": (lambda text: text.replace("event: response.created", "event: response.made"), "its event is"),
    "a word": (lambda text: text.replace('"delta":"', '"delta":"x', 1), "is not what"),
    "a field": (lambda text: text.replace('"parallel_tool_calls"', '"wool"'), "parallel_tool_calls"),
    "a type": (lambda text: text.replace('"logprobs":[]', '"logprobs":7'), "logprobs"),
    "[DONE]": (lambda text: text.replace("data: [DONE]\n\n", ""), "nothing shows it was cancelled"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_broken_is_found(said: Said, stream: str, what: str) -> None:
    change, fault = BREAKS[what]
    assert change(stream) != stream
    said.answer("POST", "/v1/responses", change(stream))
    found = said.faults()
    assert any(fault in each for each in found), found


def test_two_tellings_of_a_response_have_to_agree(said: Said, stream: str, events: list[dict[str, Any]]) -> None:
    said.answer("POST", "/v1/responses", stream)
    other = stream.replace('"model":"simulated', '"model":"imagined')
    said.answer("GET", f"/v1/responses/{events[0]['response']['id']}", other, query="stream=true")
    assert any("told otherwise before" in fault for fault in said.faults())


def test_a_socket_is_judged_lane_by_lane(said: Said, events: list[dict[str, Any]]) -> None:
    said.socket(*events[:-2], events[-1])
    assert any("sequence_number" in fault or "numbers" in fault for fault in said.faults())
    strange = Said(said._directory)
    strange.socket(events[3], {"type": "error", "status": 400, "error": {"message": "no"}})
    found = strange.faults()
    assert any("belongs to no response" in fault for fault in found)
    assert any("'code' is a required property" in fault for fault in found)


@pytest.mark.parametrize("field", ["id", "output", "usage", "text", "metadata", "store", "tool_choice"])
def test_a_body_without_a_field_is_found(said: Said, body: dict[str, Any], field: str) -> None:
    less = {name: value for name, value in body.items() if name != field}
    said.answer("POST", "/v1/responses", json.dumps(less), "application/json")
    assert any(field in fault for fault in said.faults())


def test_an_item_is_what_clients_know(said: Said) -> None:
    page = {"object": "list", "has_more": False, "first_id": "a", "last_id": "a"}
    call = {"type": "mcp_call", "id": "a", "server_label": "demo", "arguments": "{}"}
    said.answer("GET", "/v1/responses/resp_1/input_items", json.dumps({**page, "data": [call]}), "application/json")
    said.answer(
        "GET", "/v1/conversations/conv_1/items", json.dumps({**page, "data": [{"type": "sheep"}]}), "application/json"
    )
    found = said.faults()
    assert any("$.name" in fault for fault in found)
    assert any("no item of type sheep" in fault for fault in found)


async def test_the_recorder_writes_what_is_said_before_it_is_sent(tmp_path: Path) -> None:
    async def broken(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", SSE.encode())]})
        await send({"type": "http.response.body", "body": b'event: a\ndata: {"type":"b"}\n\n', "more_body": True})
        raise ConnectionError

    app = Recorder(broken, tmp_path / "1.transcript")
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://shepherd") as client:
        with pytest.raises(ConnectionError):
            await client.post("/v1/responses")
    kinds = [json.loads(line)[1] for line in (tmp_path / "1.transcript").read_text().splitlines()]
    assert kinds == ["asked", "began", "body"]


def test_a_process_that_says_something_illegal_fails_its_test(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    lines = [[0, "asked", ["POST", "/v1/responses", ""]], [0, "began", [404, "application/json"]]]
    lines += [[0, "body", '{"error":"no"}'], [0, "ended", None]]
    program = f"import os; open(os.environ[{RECORD_TO!r}], 'w').write({chr(10).join(map(json.dumps, lines))!r})"
    command = [sys.executable, "-c", program]
    with pytest.raises(AssertionError, match="not of type 'object'"), process(command) as running:
        assert running.wait(30) == 0
    with process(command, judged=False) as running:
        assert running.wait(30) == 0
