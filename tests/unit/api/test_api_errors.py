"""Every error has the same body, whoever noticed it; nobody sees what is inside."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from app.turn.errors import Conflict, GatewayError, NoWorker, RateLimited, Unauthenticated, UpstreamFailed
from tests.unit.api.api_world import World, error, seen

ASK = {"model": "m", "input": "hi"}


@pytest.mark.parametrize(
    ("fault", "status", "kind", "code"),
    [
        (NoWorker("nobody"), 503, "server_error", "no_workers_available"),
        (Unauthenticated("who?"), 401, "authentication_error", "invalid_api_key"),
        (Conflict("twice"), 409, "conflict_error", "conflict"),
        (RateLimited("slow down"), 429, "rate_limit_error", "rate_limit_exceeded"),
        (UpstreamFailed("broke"), 502, "server_error", "upstream_error"),
        (GatewayError("odd", status=418, code="odd", param="input[0]"), 418, "invalid_request_error", "odd"),
    ],
)
async def test_errors_of_ours(fault: GatewayError, status: int, kind: str, code: str) -> None:
    world = World()
    world.responses.fault = fault
    async with world.client() as client:
        answer = await client.post("/v1/responses", json=ASK)
    assert seen(answer) == error(status, fault.message, kind, fault.param, code)
    assert answer.headers["content-type"] == "application/json"


async def test_retry_after_is_whole_seconds() -> None:
    world = World()
    world.responses.fault = NoWorker("nobody", retry_after=1.2)
    async with world.client() as client:
        assert (await client.post("/v1/responses", json=ASK)).headers["retry-after"] == "2"


async def test_a_fault_of_ours_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.responses.fault = RuntimeError("the password is hunter2")
    async with world.client() as client:
        with caplog.at_level(logging.ERROR):
            answer = await client.post("/v1/responses", json=ASK, headers={"x-request-id": "mine"})
    message = "The server had an error while processing your request. Its id is mine."
    assert seen(answer) == error(500, message, "server_error", None, "internal_error")
    assert "hunter2" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/nothing", 404, "Unknown request URL: GET /v1/nothing. Please check the URL for typos."),
        ("GET", "/v1/responses", 405, "Not allowed to GET on /v1/responses."),
        ("PUT", "/v1/models", 405, "Not allowed to PUT on /v1/models."),
    ],
)
async def test_errors_of_the_framework(method: str, path: str, status: int, message: str) -> None:
    async with World().client() as client:
        answer = await client.request(method, path)
    assert seen(answer) == error(status, message, "invalid_request_error")
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("query", "param", "code", "message"),
    [
        ("limit=0", "limit", "invalid_value", "Invalid 'limit': Expected `int` >= 1"),
        ("limit=101", "limit", "invalid_value", "Invalid 'limit': Expected `int` <= 100"),
        ("limit=many", "limit", "invalid_value", "Invalid 'limit': Expected `int`, got `str`"),
        ("order=random", "order", "invalid_value", "Invalid 'order': Invalid enum value 'random'"),
        ("after=nowhere", "after", None, "No item with id 'nowhere'."),
    ],
)
async def test_a_query_that_does_not_validate(query: str, param: str, code: str | None, message: str) -> None:
    async with World().client() as client:
        answer = await client.get(f"/v1/responses/resp_1/input_items?{query}")
    assert seen(answer) == error(400, message, "invalid_request_error", param, code)


@pytest.mark.parametrize(
    ("headers", "said"),
    [({"content-type": "text/plain"}, "text/plain"), ({}, "none"), ({"content-type": ";"}, "none")],
)
async def test_only_json_is_read(headers: dict[str, str], said: str) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.post("/v1/responses", content=b'{"model":"m","input":"hi"}', headers=headers)
    message = f"Expected content-type application/json, got {said}."
    assert seen(answer) == error(415, message, "invalid_request_error", None, "unsupported_media_type")
    assert world.responses.asked == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": 7}', b"nul"])
async def test_garbage_is_a_400(body: bytes) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.post("/v1/responses", content=body, headers={"content-type": "application/json"})
    said: dict[str, Any] = answer.json()["error"]
    assert answer.status_code == 400
    assert said["type"] == "invalid_request_error"
    assert world.responses.asked == []
