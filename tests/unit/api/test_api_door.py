"""The door: who gets in, where to, and what the others are told."""

import pytest

from app.tenancy.principal import Principal
from tests.unit.api.api_world import World, error, seen

ASK = {"model": "m", "input": "hi"}


def world() -> World:
    made = World()
    made.gate.keys = {
        "data-key": Principal("acme", "key_1", frozenset(["data"])),
        "admin-key": Principal("acme", "key_2", frozenset(["admin"])),
    }
    return made


@pytest.mark.parametrize("path", ["/health", "/readiness", "/liveness", "/openapi.json", "/docs"])
async def test_probes_and_documentation_need_no_key(path: str) -> None:
    async with world().client() as client:
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/responses/resp_1", "/admin/v1/anything", "/healthy", "/no/such/path", "/docsx"]
)
async def test_everything_else_needs_one_even_what_is_not_there(path: str) -> None:
    async with world().client() as client:
        answer = await client.get(path)
    assert seen(answer) == error(401, "Incorrect API key provided.", "authentication_error", None, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "x-request-id" in answer.headers


@pytest.mark.parametrize("headers", [{"authorization": "Bearer data-key"}, {"x-api-key": "data-key"}])
async def test_a_key_opens_as_openai_sends_it_and_as_anthropic_does(headers: dict[str, str]) -> None:
    async with world().client() as client:
        assert (await client.get("/v1/models", headers=headers)).status_code == 200


async def test_two_different_keys_are_none() -> None:
    async with world().client() as client:
        headers = {"authorization": "Bearer data-key", "x-api-key": "admin-key"}
        assert (await client.get("/v1/models", headers=headers)).status_code == 401


@pytest.mark.parametrize(("key", "path"), [("admin-key", "/v1/models"), ("data-key", "/admin/v1/mcp/servers")])
async def test_a_key_does_what_its_scopes_say(key: str, path: str) -> None:
    async with world().client() as client:
        answer = await client.get(path, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "permission_error"
    assert answer.json()["error"]["code"] == "insufficient_scope"


async def test_the_principal_is_passed_on() -> None:
    made = world()
    made.responses.run.finished.set_result(b"{}")
    async with made.client() as client:
        await client.post("/v1/responses", json=ASK, headers={"authorization": "Bearer data-key"})
    assert made.responses.asked[0][0] == "acme"
    assert made.responses.principals == ["key_1"]


@pytest.mark.parametrize("origin", ["https://evil.example", "http://shepherd:81", "null"])
async def test_where_nobody_needs_a_key_pages_of_other_origins_change_nothing(origin: str) -> None:
    open_to_all, closed = World(), world()
    for made in (open_to_all, closed):
        made.responses.run.finished.set_result(b"{}")
    headers = {"origin": origin, "host": "shepherd"}
    async with open_to_all.client() as client:
        for path in ("/v1/responses", "/v1/responses/resp_1/cancel", "/admin/v1/mcp/servers/demo/disable"):
            answer = await client.post(path, json=ASK, headers=headers)
            message = "Pages of other origins may not change anything here."
            assert seen(answer) == error(403, message, "permission_error", None, "other_origin")
        assert open_to_all.responses.asked == []
        # Its own page may, and so may whoever is no page; what others read their browsers do not show them.
        for own in ({"origin": "http://shepherd", "host": "shepherd"}, {"host": "shepherd"}):
            assert (await client.post("/v1/responses", json=ASK, headers=own)).status_code == 200
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
    async with closed.client() as client:
        keyed = {**headers, "authorization": "Bearer data-key"}
        assert (await client.post("/v1/responses", json=ASK, headers=keyed)).status_code == 200
