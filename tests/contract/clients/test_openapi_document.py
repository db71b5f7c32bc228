"""The description at `/docs` has every endpoint, and says what each is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from app.api.bodies import BODIES

ENDPOINTS = {
    "/v1/responses": {"get", "post"},
    "/v1/responses/{response_id}": {"get", "delete"},
    "/v1/responses/{response_id}/cancel": {"post"},
    "/v1/responses/{response_id}/input_items": {"get"},
    "/v1/responses/input_tokens": {"post"},
    "/v1/responses/compact": {"post"},
    "/v1/conversations": {"get", "post"},
    "/v1/conversations/{conversation_id}": {"get", "post", "delete"},
    "/v1/conversations/{conversation_id}/items": {"get", "post"},
    "/v1/conversations/{conversation_id}/items/{item_id}": {"get", "delete"},
    "/v1/prompts": {"get", "post"},
    "/v1/prompts/{prompt_id}": {"get", "delete"},
    "/v1/prompts/{prompt_id}/versions": {"post"},
}


@pytest.fixture(scope="module")
def document(shepherd: str) -> Any:
    """The description, as a running gateway gives it."""
    return httpx.get(f"{shepherd}/docs/openapi.json", trust_env=False, timeout=30).json()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (each for name, each in value.items() if name == "$ref")
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_endpoint_is_described(document: Any, path: str) -> None:
    operations = document["paths"][path]
    assert set(operations) == ENDPOINTS[path]
    for operation in operations.values():
        assert operation["operationId"]
        assert operation["summary"]
        assert any(status.startswith("2") for status in operation["responses"])


def test_what_is_sent_is_described(document: Any) -> None:
    for method, path in BODIES:
        operation = document["paths"][path][method]
        assert list(references(operation["requestBody"]["content"]["application/json"]["schema"]))
        assert operation["responses"]["400"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorBody")
    named = {each["name"] for each in document["paths"]["/v1/responses"]["get"]["parameters"]}
    assert named == {"limit", "order", "after", "model", "status", "conversation"}


def test_names_are_unique_and_references_lead_somewhere(document: Any) -> None:
    names = [each["operationId"] for operations in document["paths"].values() for each in operations.values()]
    assert len(names) == len(set(names))
    for reference in references(document):
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            found = found[step.replace("~1", "/")]


def test_the_list_of_responses(shepherd: str) -> None:
    with httpx.Client(base_url=f"{shepherd}/v1", trust_env=False, timeout=30) as http:
        talk = http.post("/conversations", json={}).json()["id"]
        made = [
            http.post("/responses", json={"model": "simulated", "input": f"{n}", "conversation": talk}).json()
            for n in range(3)
        ]
        first = http.get("/responses", params={"conversation": talk, "limit": 2}).json()
        rest = http.get("/responses", params={"conversation": talk, "limit": 2, "after": first["last_id"]}).json()
        assert (first["object"], first["has_more"], rest["has_more"]) == ("list", True, False)
        found = {each["id"]: each for each in (*first["data"], *rest["data"])}
        assert found == {each["id"]: each for each in made}
        assert http.get("/responses", params={"status": "failed", "conversation": talk}).json()["data"] == []
        listed = http.get("/conversations", params={"limit": 1}).json()
        assert [each["object"] for each in listed["data"]] == ["conversation"]


def test_prompts_over_http(shepherd: str) -> None:
    with httpx.Client(base_url=f"{shepherd}/v1", trust_env=False, timeout=30) as http:
        body = {"name": "greeter", "instructions": "You greet.", "input": "Greet {{who}} in {{language}}."}
        made = http.post("/prompts", json={**body, "variables": {"language": "Scots"}}).json()
        assert (made["object"], made["version"], made["variables"]) == (
            "prompt",
            "1",
            {"who": None, "language": "Scots"},
        )
        second = http.post(f"/prompts/{made['id']}/versions", json={**body, "input": "Ignore {{who}}."}).json()
        assert (second["version"], second["latest_version"], second["variables"]) == ("2", "2", {"who": None})
        old = http.get(f"/prompts/{made['id']}", params={"version": "1"}).json()
        assert old == {**made, "latest_version": "2"}
        asked = {"id": made["id"], "variables": {"who": "Dolly"}}
        answer = http.post("/responses", json={"model": "simulated", "prompt": asked}).json()
        assert (answer["prompt"]["version"], answer["instructions"]) == ("2", "You greet.")
        given = http.get(f"/responses/{answer['id']}/input_items").json()["data"]
        assert given[0]["content"] == [{"type": "input_text", "text": "Ignore Dolly."}]
        assert http.delete(f"/prompts/{made['id']}").json()["deleted"] is True
        assert http.get(f"/prompts/{made['id']}").status_code == 404
