"""The errors clients have learnt to tell apart: status, type, code, param and, where they read it, the message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from msgspec import Struct

from tests.contract.clients.sluice import Sluice, sluice
from tests.support.processes import gateway, simulator

LONG = "sheep " * 3000
INVALID = "invalid_request_error"


class Client(httpx.Client):
    """A client of a gateway, and what lets the gateway's worker answer."""

    def __init__(self, url: str, worker: Sluice) -> None:
        super().__init__(base_url=f"{url}/v1", timeout=30, trust_env=False)
        self.worker = worker


class Case(Struct, frozen=True):
    """What is asked, and what is answered. `message` is what the message begins with."""

    name: str
    ask: Callable[[Client], httpx.Response]
    status: int
    code: str | None
    param: str | None
    message: str = ""
    type: str = INVALID


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a gateway before a worker with little room and one that is always busy."""
    directory = tmp_path_factory.mktemp("errors")
    with (
        simulator("--models", "m", "--max-model-len", "2000") as small,
        sluice(small, b"/v1/chat/completions") as worker,
        simulator("--models", "limited", "--fail-status", "429", "--retry-after-secs", "7") as limited,
        gateway(directory, "--worker-urls", worker.url, limited) as url,
        Client(url, worker) as client,
    ):
        yield client


def create(**body: Any) -> Callable[[httpx.Client], httpx.Response]:
    return lambda http: http.post("/responses", json={"model": "m", "input": "Hello", **body})


def user(text: str) -> dict[str, str]:
    return {"type": "message", "role": "user", "content": text}


def after_one_that_is_not_stored(http: httpx.Client) -> httpx.Response:
    made = create(store=False)(http).json()
    return create(previous_response_id=made["id"])(http)


def in_a_busy_conversation(http: Client) -> httpx.Response:
    talk = http.post("/conversations", json={}).json()
    asked = {"model": "m", "input": "Hello", "conversation": talk["id"], "stream": True}
    with http.worker.shut(), http.stream("POST", "/responses", json=asked) as first:
        next(first.iter_lines())
        second = create(conversation=talk["id"])(http)
        added = http.post(f"/conversations/{talk['id']}/items", json={"items": [user("x")]})
        assert (added.status_code, added.json()) == (second.status_code, second.json())
        assert http.delete(f"/conversations/{talk['id']}").status_code == 400
    first_done = http.get(f"/conversations/{talk['id']}/items", params={"limit": 100})
    assert first_done.status_code == 200
    return second


def with_a_call_left_open(http: httpx.Client) -> httpx.Response:
    tools = [{"type": "function", "name": "add_up", "parameters": {"type": "object", "properties": {}}}]
    first = create(input='add_up {"a": 1}', tools=tools)(http).json()
    assert first["output"][0]["call_id"]
    answer = create(previous_response_id=first["id"], tools=tools)(http)
    assert first["output"][0]["call_id"] in answer.json()["error"]["message"]
    return answer


def cancel_of_one_in_the_foreground(http: httpx.Client) -> httpx.Response:
    made = create()(http).json()
    return http.post(f"/responses/{made['id']}/cancel")


CASES = [
    Case(
        "unknown previous response",
        create(previous_response_id="resp_0"),
        400,
        "previous_response_not_found",
        "previous_response_id",
        "Previous response with id 'resp_0' not found.",
    ),
    Case(
        "previous response that was not stored",
        after_one_that_is_not_stored,
        400,
        "previous_response_not_found",
        "previous_response_id",
        "Previous response with id 'resp_",
    ),
    Case(
        "busy conversation",
        in_a_busy_conversation,
        400,
        "conversation_locked",
        "conversation",
        "Another process is currently operating on this conversation. Please retry in a few seconds.",
    ),
    Case(
        "output without a call",
        create(input=[{"type": "function_call_output", "call_id": "call_x", "output": "1"}]),
        400,
        None,
        "input",
        "No tool call found for function call output with call_id call_x",
    ),
    Case("call without an output", with_a_call_left_open, 400, None, "input", "No tool output found for function call"),
    Case(
        "item that was not stored",
        create(input=[{"type": "item_reference", "id": "rs_0"}, user("x")]),
        404,
        None,
        "input",
        "Item with id 'rs_0' not found. Items are not persisted when `store` is set to false.",
    ),
    Case(
        "reasoning of somebody else",
        create(input=[{"type": "reasoning", "id": "rs_0", "summary": [], "encrypted_content": "gAAAA"}, user("x")]),
        400,
        "invalid_encrypted_content",
        "input[0].encrypted_content",
    ),
    Case("too much context", create(input=LONG), 400, "context_length_exceeded", None),
    Case(
        "id with other characters",
        create(previous_response_id="resp_a b"),
        400,
        "invalid_value",
        "previous_response_id",
        "Invalid 'previous_response_id': 'resp_a b'. Expected an ID that contains letters, numbers, underscores, or "
        "dashes",
    ),
    Case(
        "id of something else",
        create(previous_response_id="conv_1"),
        400,
        "invalid_value",
        "previous_response_id",
        "Invalid 'previous_response_id': 'conv_1'. Expected an ID that begins with 'resp'.",
    ),
    Case("cancel in the foreground", cancel_of_one_in_the_foreground, 400, "response_not_background", None),
    Case("cancel of what is not there", lambda http: http.post("/responses/resp_0/cancel"), 404, None, None),
    Case("model that is not there", create(model="nobody"), 404, "model_not_found", "model"),
    Case(
        "two contexts",
        create(previous_response_id="resp_0", conversation="conv_0"),
        400,
        "mutually_exclusive_parameters",
        "previous_response_id",
    ),
    # The engine's own code is kept.
    Case("worker's limit", create(model="limited"), 429, "simulated_failure", None, type="rate_limit_error"),
    Case("unknown response", lambda http: http.get("/responses/resp_0"), 404, None, None),
    Case("unknown conversation", create(conversation="conv_0"), 404, "conversation_not_found", "conversation"),
    Case(
        "conversation that is not there",
        lambda http: http.get("/conversations/conv_0"),
        404,
        "conversation_not_found",
        None,
    ),
    Case(
        "too many items",
        lambda http: http.post("/conversations", json={"items": [user("x")] * 21}),
        400,
        "array_above_max_length",
        "items",
    ),
    Case(
        "wrong item",
        lambda http: http.post("/conversations", json={"items": [user("x"), {"role": "nobody", "content": ""}]}),
        400,
        "invalid_value",
        "items[1].role",
    ),
    Case(
        "too much metadata",
        lambda http: http.post("/conversations", json={"metadata": {f"k{n}": "v" for n in range(17)}}),
        400,
        "invalid_value",
        "metadata",
    ),
    Case("unknown prompt", create(prompt={"id": "pmpt_0"}), 404, "prompt_not_found", "prompt.id"),
    Case(
        "unknown field", lambda http: http.post("/conversations", json={"item": []}), 400, "unknown_parameter", "item"
    ),
    Case("unknown field in a field", create(reasoning={"efort": "low"}), 400, "unknown_parameter", "reasoning.efort"),
    Case("unknown parameter", lambda http: http.get("/responses?sort=up"), 400, "unknown_parameter", "sort"),
    Case("limit out of range", lambda http: http.get("/responses?limit=0"), 400, "invalid_value", "limit"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table(http: Client, case: Case) -> None:
    answer = case.ask(http)
    error = answer.json()["error"]
    found = (answer.status_code, error["type"], error["code"], error["param"])
    assert found == (case.status, case.type, case.code, case.param), error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].startswith(case.message)


def test_a_context_that_is_too_long_can_be_cut(http: httpx.Client) -> None:
    asked = [*(user("sheep " * 200) for _ in range(10)), user("How many?")]
    assert create(input=asked)(http).json()["error"]["code"] == "context_length_exceeded"
    assert create(input=asked, truncation="auto")(http).json()["status"] == "completed"
