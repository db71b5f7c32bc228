"""Credentials: sealed, each one's own, fetched once, renewed, revoked; and users who sign in."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from sqlalchemy import text

from app.boot.rooms import opened
from app.db.engine import Database, database_url
from app.mcp.executor import McpExecutor
from app.responses.ports import McpServer
from app.turn.events import CallTool
from app.turn.request import NEVER_ASK
from tests.contract.admin.conftest import Gateway
from tests.support.oauth_world import OAuthWorld, oauth_world

SERVERS = "/admin/v1/mcp/servers"


@pytest.fixture
def mcp_settings() -> dict[str, Any]:
    return {"public_url": "https://shepherd.example"}


@pytest.fixture
async def world() -> AsyncIterator[OAuthWorld]:
    async with oauth_world() as made:
        yield made


async def register(gateway: Gateway, world: OAuthWorld, auth: str, tenant: str = "acme") -> None:
    config = {"url": world.url, "auth": auth}
    answer = await gateway[f"{tenant}.admin"].post(SERVERS, json={"label": "demo", "config": config})
    assert answer.status_code == 201, answer.text


async def keep(
    client: httpx.AsyncClient, secret: dict[str, Any], path: str = f"{SERVERS}/demo/credentials/shared"
) -> None:
    answer = await client.put(path, json=secret)
    assert answer.status_code == 204, answer.text


async def probe(client: httpx.AsyncClient) -> dict[str, Any]:
    return (await client.post(f"{SERVERS}/demo/probe")).json()


async def stored(gateway: Gateway) -> str:
    database = Database(database_url(gateway.settings.db, gateway.settings.server.data_dir), gateway.settings.db)
    found: list[Any] = []
    async with database.reading() as connection:
        for table in ("mcp_credentials", "mcp_enrolments", "mcp_servers", "audit"):
            found += [dict(row) for row in (await connection.execute(text(f"SELECT * FROM {table}"))).mappings()]
    await database.close()
    return repr(found)


async def test_without_a_credential_it_says_so_and_asks_nobody(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "shared")
    assert "there is none yet" in (await probe(gateway["acme.admin"]))["error"]["message"]
    assert world.refused == 0


async def test_a_static_token_is_sent_sealed_at_rest_and_never_shown(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "shared")
    world.valid.add("sentinel-token")
    admin = gateway["acme.admin"]
    await keep(admin, {"kind": "bearer", "token": "sentinel-token"})
    assert (await probe(admin))["ok"] is True
    assert "sentinel" not in await stored(gateway)
    shown = await admin.get(f"{SERVERS}/demo/credentials")
    assert [(each["principal"], each["kind"]) for each in shown.json()["data"]] == [("", "bearer")]
    for path in (SERVERS, f"{SERVERS}/demo", "/admin/v1/audit/", f"{SERVERS}/demo/tools"):
        assert "sentinel" not in (await admin.get(path)).text


async def test_headers_may_not_be_any(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "shared")
    for name in ("Host", "mcp-session-id", "Cookie", "Connection"):
        secret = {"kind": "headers", "headers": {name: "x"}}
        answer = await gateway["acme.admin"].put(f"{SERVERS}/demo/credentials/shared", json=secret)
        assert answer.status_code == 400
    world.valid.add("in-a-header")
    await keep(gateway["acme.admin"], {"kind": "headers", "headers": {"Authorization": "Bearer in-a-header"}})
    assert (await probe(gateway["acme.admin"]))["ok"] is True


@pytest.mark.parametrize(
    ("secret", "asked"),
    [
        (
            {"kind": "client_credentials", "client_id": "id", "client_secret": "hush", "scope": "a b", "resource": "r"},
            {"grant_type": "client_credentials", "scope": "a b", "resource": "r"},
        ),
        (
            {
                "kind": "token_exchange", "client_id": "id", "client_secret": "hush", "subject_token": "users-own",
                "audience": "server",
            },
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": "users-own",
                "subject_token_type": "urn:ietf:params:oauth:token-type:access_token", "audience": "server",
            },
        ),
    ],
)  # fmt: skip
async def test_a_token_is_fetched_once_renewed_when_refused_and_kept_while_it_lasts(
    gateway: Gateway, world: OAuthWorld, secret: dict[str, Any], asked: dict[str, str]
) -> None:
    await register(gateway, world, "shared")
    admin = gateway["acme.admin"]
    await keep(admin, {**secret, "token_url": f"{world.origin}/token"})
    results = await asyncio.gather(*(probe(admin) for _ in range(5)))
    assert all(each["ok"] for each in results), results
    assert world.issued == 1
    assert world.asked[0] == {**asked, "authorization": "Basic aWQ6aHVzaA=="}
    world.valid.clear()
    assert (await probe(admin))["ok"] is True
    assert world.issued == 2


CLIENT = {"kind": "client_credentials", "client_id": "id", "client_secret": "hush"}


@pytest.mark.parametrize("post", [True, False])
async def test_where_a_clients_tokens_come_from_is_found_once_and_kept(
    gateway: Gateway, world: OAuthWorld, post: bool
) -> None:
    await register(gateway, world, "shared")
    admin = gateway["acme.admin"]
    # Nobody signs in there, and nothing is registered.
    world.metadata = {
        "issuer": world.origin,
        "token_endpoint": f"{world.origin}/token",
        "token_endpoint_auth_methods_supported": ["client_secret_post" if post else "client_secret_basic"],
    }
    await keep(admin, CLIENT)
    # Whatever it says from now on.
    world.resource = {**world.resource, "authorization_servers": ["https://elsewhere.example"]}
    assert (await probe(admin))["ok"] is True
    (asked,) = world.asked
    assert (asked["scope"], asked["resource"]) == ("tools", world.url)
    assert (asked.get("client_secret"), asked["authorization"] != "") == ("hush" if post else None, not post)
    world.valid.clear()
    assert (await probe(admin))["ok"] is True
    assert len(world.asked) == 2


@pytest.mark.parametrize("wrong", ["no resource", "another resource", "another issuer", "no token endpoint"])
async def test_a_client_whose_token_endpoint_is_not_to_be_found_is_not_kept(
    gateway: Gateway, world: OAuthWorld, wrong: str
) -> None:
    await register(gateway, world, "shared")
    if wrong == "no resource":
        world.resource = {}
    elif wrong == "another resource":
        world.resource["resource"] = "https://elsewhere.example/mcp"
    elif wrong == "another issuer":
        world.metadata["issuer"] = "https://elsewhere.example"
    else:
        del world.metadata["token_endpoint"]
    answer = await gateway["acme.admin"].put(f"{SERVERS}/demo/credentials/shared", json=CLIENT)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "mcp_token_url_not_found", "token_url")
    assert (await gateway["acme.admin"].get(f"{SERVERS}/demo/credentials")).json()["data"] == []
    assert world.asked == []


async def test_a_token_endpoint_that_refuses_is_an_error_that_quotes_nothing(
    gateway: Gateway, world: OAuthWorld
) -> None:
    await register(gateway, world, "shared")
    world.fails = True
    secret = {"kind": "client_credentials", "client_id": "id", "client_secret": "hush"}
    await keep(gateway["acme.admin"], {**secret, "token_url": f"{world.origin}/token"})
    said = json.dumps(await probe(gateway["acme.admin"]))
    assert "invalid_grant" in said
    assert "hush" not in said
    assert "sentinel" not in said


async def test_each_principal_has_its_own_and_no_other(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "per_user")
    world.valid |= {"of-admin", "of-boss"}
    await keep(gateway["acme.admin"], {"kind": "bearer", "token": "of-admin"}, f"{SERVERS}/demo/credentials/mine")
    assert (await probe(gateway["acme.admin"]))["ok"] is True
    assert "there is none yet" in (await probe(gateway["acme.boss"]))["error"]["message"]
    await keep(gateway["acme.both"], {"kind": "bearer", "token": "of-boss"}, "/v1/mcp/credentials/demo")
    assert (await probe(gateway["acme.both"]))["ok"] is True
    answer = await gateway["evil.both"].put("/v1/mcp/credentials/demo", json={"kind": "bearer", "token": "x"})
    assert answer.status_code == 404


async def test_a_credential_that_was_moved_does_not_open(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "shared")
    await register(gateway, world, "shared", tenant="evil")
    await keep(gateway["acme.admin"], {"kind": "bearer", "token": "of-acme"})
    await keep(gateway["evil.admin"], {"kind": "bearer", "token": "of-evil"})
    database = Database(database_url(gateway.settings.db, gateway.settings.server.data_dir), gateway.settings.db)
    async with database.writing() as connection:
        await connection.execute(
            text(
                "UPDATE mcp_credentials SET sealed = (SELECT sealed FROM mcp_credentials WHERE tenant = 'acme') "
                "WHERE tenant = 'evil'"
            )
        )
    await database.close()
    assert "cannot be opened" in (await probe(gateway["evil.admin"]))["error"]["message"]


async def test_revoking_ends_what_was_opened_with_it(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "shared")
    world.valid.add("of-acme")
    admin = gateway["acme.admin"]
    await keep(admin, {"kind": "bearer", "token": "of-acme"})
    assert (await probe(admin))["ok"] is True
    assert (await admin.delete(f"{SERVERS}/demo/credentials/shared")).status_code == 204
    assert "there is none yet" in (await probe(admin))["error"]["message"]
    assert (await admin.delete(f"{SERVERS}/demo/credentials/shared")).status_code == 404
    assert (await admin.get("/admin/v1/audit/")).json()["data"][0]["action"] == ("mcp.credential.remove")


# ── signing in ────────────────────────────────────────────────────────────────


async def begin(client: httpx.AsyncClient) -> str:
    answer = await client.post("/v1/mcp/credentials/demo/sign-in")
    assert answer.status_code == 200, answer.text
    return answer.json()["authorization_url"]


async def end(client: httpx.AsyncClient, callback_url: str) -> httpx.Response:
    return await client.post("/v1/mcp/credentials/sign-in", json={"callback_url": callback_url})


async def test_a_user_signs_in_and_stays_so(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "per_user")
    user = gateway["acme.both"]
    url = await begin(user)
    assert url.startswith(f"{world.origin}/authorize?")
    assert "code_challenge_method=S256" in url
    callback = world.sign_in(url)
    assert callback.startswith("https://shepherd.example/oauth/callback?")
    assert (await end(user, callback)).json() == {"label": "demo"}
    assert (await probe(user))["ok"] is True
    assert "there is none yet" in (await probe(gateway["acme.boss"]))["error"]["message"]
    world.valid.clear()
    assert (await probe(user))["ok"] is True
    assert world.asked[-1]["refresh_token"] == "refresh-1"
    world.valid.clear()
    assert (await probe(user))["ok"] is True
    assert world.asked[-1]["refresh_token"] == "refresh-2"
    kept = await stored(gateway)
    assert "refresh-" not in kept
    assert "token-" not in kept


async def test_a_sign_in_is_finished_once_and_by_who_began_it(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "per_user")
    await register(gateway, world, "per_user", tenant="evil")
    user = gateway["acme.both"]
    callback = world.sign_in(await begin(user))
    for other in ("acme.data", "evil.both"):
        assert (await end(gateway[other], callback)).status_code == 404
    assert (await end(user, callback)).status_code == 200
    assert (await end(user, callback)).status_code == 404
    assert (await end(user, callback.replace("state=", "state=x"))).status_code == 404
    assert (await end(user, "https://shepherd.example/oauth/callback?error=access_denied")).status_code == 400


@pytest.mark.parametrize("iss", ["https://other.example", ""])
async def test_the_answer_has_to_come_from_whom_was_asked(gateway: Gateway, world: OAuthWorld, iss: str) -> None:
    await register(gateway, world, "per_user")
    answer = await end(gateway["acme.both"], world.sign_in(await begin(gateway["acme.both"]), iss=iss))
    assert answer.status_code == 400
    assert "another authorization server" in answer.json()["error"]["message"]
    assert world.issued == 0


@pytest.mark.parametrize(
    ("where", "change", "why"),
    [
        ("resource", {"resource": "https://other.example/mcp"}, "another resource"),
        ("resource", {"authorization_servers": []}, "names no authorization server"),
        ("resource", {"authorization_servers": ["http://169.254.169.254"]}, "could not be asked"),
        ("metadata", {"issuer": "https://other.example"}, "another name"),
        ("metadata", {"code_challenge_methods_supported": ["plain"]}, "PKCE"),
        ("metadata", {"registration_endpoint": None}, "knows no client"),
        ("metadata", {"registration_endpoint": "http://169.254.169.254/register"}, "could not be asked"),
    ],
)
async def test_what_servers_say_of_themselves_is_checked(
    gateway: Gateway, world: OAuthWorld, where: str, change: dict[str, Any], why: str
) -> None:
    getattr(world, where).update(change)
    await register(gateway, world, "per_user")
    answer = await gateway["acme.both"].post("/v1/mcp/credentials/demo/sign-in")
    assert answer.status_code == 400
    assert why in answer.json()["error"]["message"]


async def test_a_client_of_the_tenants_own_or_our_description_is_used(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "per_user")
    world.metadata["client_id_metadata_document_supported"] = True
    assert "client_id=https%3A%2F%2Fshepherd.example%2Foauth%2Fclient.json" in await begin(gateway["acme.both"])
    document = (await gateway["acme.both"].get("/oauth/client.json", headers={"authorization": ""})).json()
    assert document["client_id"] == "https://shepherd.example/oauth/client.json"
    assert document["redirect_uris"] == ["https://shepherd.example/oauth/callback"]
    await keep(gateway["acme.admin"], {"kind": "oauth_client", "client_id": "ours", "client_secret": "hush"})
    url = await begin(gateway["acme.both"])
    assert "client_id=ours&" in url + "&"
    assert (await end(gateway["acme.both"], world.sign_in(url))).status_code == 200
    assert world.asked[-1]["authorization"].startswith("Basic ")
    assert world.registered == 0


async def test_the_page_browsers_end_at_runs_and_frames_nothing(gateway: Gateway) -> None:
    page = await gateway["acme.both"].get("/oauth/callback", params={"code": "sentinel"}, headers={"authorization": ""})
    assert page.status_code == 200
    assert "sentinel" not in page.text
    assert page.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert page.headers["referrer-policy"] == "no-referrer"


async def test_the_callers_own_key_goes_nowhere(gateway: Gateway, world: OAuthWorld) -> None:
    world.valid.add("")
    await register(gateway, world, "none")
    async with opened(gateway.settings) as rooms:
        admin = rooms.services.admin
        assert admin is not None
        executor: McpExecutor = admin.mcp._executor
        async with executor.open("acme", [McpServer(label="demo", require_approval=NEVER_ASK)], None, "key_1") as tools:
            result = await tools.call(CallTool("c", "demo", "whoami", "{}"))
    assert result.output == "nobody"


async def test_a_sign_in_ends_where_it_was_told_to(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "per_user")
    user = gateway["acme.both"]
    for elsewhere in ("https://evil.example", "http://shepherd.example", "https://shepherd.example/x"):
        callback = world.sign_in(await begin(user)).replace("https://shepherd.example", elsewhere)
        answer = await end(user, callback)
        assert answer.status_code == 400
        assert "another address" in answer.json()["error"]["message"]
    assert world.issued == 0


@pytest.mark.parametrize(
    "inside", ["http://169.254.169.254/", "http://[::ffff:169.254.169.254]/", "http://[fd00:ec2::254]/"]
)
async def test_nothing_a_server_names_is_fetched_inside(gateway: Gateway, world: OAuthWorld, inside: str) -> None:
    """A description's own address, by `resource_metadata`; loopback itself is allowed to these tests."""
    world.challenge = f'Bearer resource_metadata="{inside}"'
    await register(gateway, world, "per_user")
    answer = await gateway["acme.both"].post("/v1/mcp/credentials/demo/sign-in")
    assert answer.status_code == 400
    assert "could not be asked" in answer.json()["error"]["message"]


async def test_descriptions_and_token_endpoints_lead_nowhere_else(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "per_user")
    world.moved["/.well-known/oauth-protected-resource/mcp"] = "http://169.254.169.254/latest"
    answer = await gateway["acme.both"].post("/v1/mcp/credentials/demo/sign-in")
    assert answer.status_code == 400
    world.moved.clear()
    world.metadata["token_endpoint"] = "http://169.254.169.254/token"
    answer = await end(gateway["acme.both"], world.sign_in(await begin(gateway["acme.both"])))
    assert answer.status_code == 400
    assert "could not be asked" in answer.json()["error"]["message"]


# ── more access ───────────────────────────────────────────────────────────────


async def sign_in(client: httpx.AsyncClient, world: OAuthWorld) -> dict[str, str]:
    """What the authorization server was asked for."""
    url = await begin(client)
    assert (await end(client, world.sign_in(url))).status_code == 200
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def standing(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/v1/mcp/credentials/demo")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_server_that_needs_more_is_signed_in_to_again_for_all_of_it(
    gateway: Gateway, world: OAuthWorld
) -> None:
    await register(gateway, world, "per_user")
    user = gateway["acme.both"]
    assert await standing(user) == {"signed_in": False, "scope": None, "missing": None}
    assert (await sign_in(user, world))["scope"] == "tools"
    assert (await probe(user))["ok"] is True
    world.needs = frozenset(("tools", "write"))
    refused = (await probe(user))["error"]
    assert refused["code"] == 403
    assert "needs more access" in refused["message"]
    assert "(scope: tools write); sign in to it again" in refused["message"]
    assert await standing(user) == {"signed_in": True, "scope": "tools", "missing": "write"}
    assert (await sign_in(user, world))["scope"] == "tools write"
    assert (await probe(user))["ok"] is True
    assert await standing(user) == {"signed_in": True, "scope": "tools write", "missing": None}
    # Nobody else has anything of it.
    assert (await standing(gateway["acme.data"]))["signed_in"] is False


async def test_access_that_is_not_granted_is_not_asked_for_in_circles(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "per_user")
    user = gateway["acme.both"]
    world.stingy, world.needs = True, frozenset(("write",))
    await sign_in(user, world)
    before = world.issued
    assert "sign in to it again" in (await probe(user))["error"]["message"]
    assert (await sign_in(user, world))["scope"] == "tools write"
    # It was asked for and not granted: to sign in once more would change nothing.
    refused = (await probe(user))["error"]["message"]
    assert "needs more access" in refused
    assert "sign in" not in refused
    assert (await standing(user))["missing"] is None
    assert world.issued == before + 1


async def test_whoever_has_not_signed_in_is_only_told(gateway: Gateway, world: OAuthWorld) -> None:
    await register(gateway, world, "shared")
    world.valid.add("fixed")
    world.needs = frozenset(("write",))
    await keep(gateway["acme.admin"], {"kind": "bearer", "token": "fixed"})
    refused = (await probe(gateway["acme.admin"]))["error"]["message"]
    assert "needs more access than its credential has (scope: write)" in refused
    assert "sign in" not in refused
