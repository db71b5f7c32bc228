"""Models, probes, request ids, metrics, and a documentation page that needs nobody else."""

from __future__ import annotations

import re

import pytest
from prometheus_client import generate_latest

from app.api.openapi import UI
from tests.unit.api.api_world import World, error, seen

MODEL = {"id": "org/model", "object": "model", "created": 5, "owned_by": "vllm"}


async def test_models() -> None:
    async with World().client() as client:
        assert seen(await client.get("/v1/models")) == (200, {"object": "list", "data": [MODEL]})
        assert seen(await client.get("/v1/models/org/model")) == (200, MODEL)
        assert seen(await client.get("/v1/models/org%2Fmodel")) == (200, MODEL)
        assert seen(await client.get("/v1/models/gpt")) == error(
            404, "The model 'gpt' does not exist.", "invalid_request_error", "model", "model_not_found"
        )


@pytest.mark.parametrize("path", ["/health", "/liveness"])
async def test_alive(path: str) -> None:
    async with World().client() as client:
        assert seen(await client.get(path)) == (200, {"status": "ok"})
        assert (await client.head(path)).status_code == 200


@pytest.mark.parametrize(
    ("draining", "healthy", "status", "state"),
    [(False, 1, 200, "ready"), (True, 1, 503, "draining"), (False, 0, 503, "no_healthy_worker")],
)
async def test_ready(draining: bool, healthy: int, status: int, state: str) -> None:
    world = World()
    world.state = type(world.state)(draining=draining, healthy_workers=healthy, workers=2, runs=3)
    async with world.client() as client:
        answer = await client.get("/readiness")
    assert seen(answer) == (status, {"status": state, "healthy_workers": healthy, "workers": 2, "runs": 3})


async def test_every_answer_has_a_request_id() -> None:
    async with World().client() as client:
        for path in ("/health", "/nowhere", "/v1/responses/resp_2"):
            assert re.fullmatch(r"req_[0-9a-f]{32}", (await client.get(path)).headers["x-request-id"])
        assert (await client.get("/health", headers={"x-request-id": "mine-1"})).headers["x-request-id"] == "mine-1"
        for bad in ("a b", "x" * 129, ""):
            assert (await client.get("/health", headers={"x-request-id": bad})).headers["x-request-id"] != bad


async def test_requests_are_counted_by_route_and_never_by_path() -> None:
    world = World()
    async with world.client() as client:
        await client.get("/v1/responses/resp_1")
        await client.get("/v1/responses/resp_2")
        await client.get("/who/knows/what")
        await client.request("BREW", "/health")
    text = generate_latest(world.metrics.registry).decode()
    route = 'route="/v1/responses/{response_id}"'
    assert f'shepherd_http_requests_total{{method="GET",{route},status="200"}} 1.0' in text
    assert f'shepherd_http_requests_total{{method="GET",{route},status="404"}} 1.0' in text
    assert f"shepherd_http_request_duration_seconds_count{{{route}}} 2.0" in text
    assert 'method="GET",route="unmatched",status="404"' in text
    assert 'method="other"' in text
    assert "knows" not in text
    assert "BREW" not in text


async def test_the_description_has_every_route_and_our_errors() -> None:
    async with World().client() as client:
        for path in ("/openapi.json", "/docs/openapi.json"):
            found = (await client.get(path)).json()
            assert {path: sorted(operations) for path, operations in found["paths"].items()} == {
                "/v1/responses": ["post"],
                "/v1/responses/{response_id}": ["delete", "get"],
                "/v1/responses/{response_id}/cancel": ["post"],
                "/v1/responses/{response_id}/input_items": ["get"],
                "/v1/models": ["get"],
                "/v1/models/{model}": ["get"],
                "/health": ["get", "head"],
                "/liveness": ["get", "head"],
                "/readiness": ["get", "head"],
            }
            create = found["paths"]["/v1/responses"]["post"]
            assert create["requestBody"]["content"]["application/json"]["schema"] == {
                "$ref": "#/components/schemas/CreateResponse"
            }
            assert {"model", "input", "tools"} <= set(found["components"]["schemas"]["CreateResponse"]["properties"])
            names = set(found["components"]["schemas"])
            references = set(re.findall(r'"#/components/schemas/([^"]+)"', (await client.get(path)).text))
            assert references <= names
            assert "status_code" not in (await client.get(path)).text


async def test_the_page_is_whole_and_refers_to_nobody_else() -> None:
    async with World().client() as client:
        page = (await client.get("/docs")).text
        assert re.findall(r"(?:https?:)?//[a-z]", page) == []
        assert "default-src 'none'" in page
        references = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(references) == 4
        for reference in references:
            answer = await client.get(reference)
            assert answer.status_code == 200
            assert len(answer.content) > 50
        assert "validatorUrl: null" in (await client.get("/docs/assets/start.js")).text


def test_the_page_loads_no_style_or_font_from_elsewhere() -> None:
    style = (UI / "swagger-ui.css").read_text(encoding="utf-8")
    assert re.findall(r"url\((?![\"']?data:)[^)]{1,60}", style) == []
    assert "@import" not in style
    assert "sourceMappingURL" not in style
    assert (UI / "LICENSE").is_file()
    assert (UI / "NOTICE").is_file()
