"""What a tenant's admin can do with MCP servers, over HTTP."""

import csv
import io
from typing import Any

import httpx
import pytest

from app.mcp.settings import OperatorServer
from tests.contract.admin.conftest import Gateway
from tests.support.mcp_servers import Exchange, demo, mcp_server, raw_server
from tests.support.ports import free_port

SERVERS = "/admin/v1/mcp/servers"


def ok(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def refused(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


async def test_a_server_is_made_read_changed_and_forgotten(gateway: Gateway) -> None:
    admin = gateway["acme.admin"]
    config = {"url": "https://mcp.example/mcp", "rules": {"tools": {"drop": {"decision": "deny"}}}}
    made = await admin.post(SERVERS, json={"label": "demo", "config": config})
    assert ok(made, 201)["config"] == config
    assert made.headers["etag"] == '"1"'
    assert [each["label"] for each in ok(await admin.get(SERVERS))["data"]] == ["demo"]
    changed = {"config": {"url": "https://mcp.example/v2"}, "enabled": False}
    one = f"{SERVERS}/demo"
    assert refused(await admin.put(one, json=changed)) == (428, "precondition_required", "if-match")
    assert refused(await admin.put(one, json=changed, headers={"if-match": '"7"'}))[:2] == (412, "version_mismatch")
    answer = await admin.put(one, json=changed, headers={"if-match": made.headers["etag"]})
    assert (ok(answer)["enabled"], ok(answer)["url"], answer.headers["etag"]) == (
        False,
        "https://mcp.example/v2",
        '"2"',
    )
    assert ok(await admin.post(f"{one}/enable"))["enabled"] is True
    assert ok(await admin.post(f"{one}/disable"))["enabled"] is False
    ok(await admin.delete(one), 204)
    assert refused(await admin.get(one)) == (404, "mcp_server_not_found", None)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"label": "x"}, "missing_required_parameter", "config"),
        ({"label": "1x", "config": {"url": "https://a.example"}}, "invalid_value", "label"),
        ({"label": "x", "config": {"url": "ftp://a.example"}}, None, "config.url"),
        ({"label": "x", "config": {"url": "https://u:p@a.example"}}, None, "config.url"),
        (
            {"label": "x", "config": {"url": "https://a.example", "command": ["sh"]}},
            "unknown_parameter",
            "config.command",
        ),
        ({"label": "x", "command": ["sh"], "config": {"url": "https://a.example"}}, "unknown_parameter", "command"),
        (
            {"label": "x", "config": {"url": "https://a.example", "allow_private": True}},
            "unknown_parameter",
            "config.allow_private",
        ),
        (
            {"label": "x", "config": {"url": "https://a.example", "rules": {"default": "maybe"}}},
            "invalid_value",
            "config.rules.default",
        ),
    ],
)
async def test_what_cannot_be_is_refused(
    gateway: Gateway, body: dict[str, Any], code: str | None, param: str | None
) -> None:
    answer = await gateway["acme.admin"].post(SERVERS, json=body)
    assert refused(answer) == (400, code, param)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_what_a_web_page_may_post_anywhere_is_not_read(gateway: Gateway, kind: str) -> None:
    body = b'{"label": "x", "config": {"url": "https://a.example"}}'
    answer = await gateway["acme.admin"].post(SERVERS, content=body, headers={"content-type": kind} if kind else {})
    assert refused(answer) == (415, "unsupported_media_type", None)
    assert ok(await gateway["acme.admin"].get(SERVERS))["data"] == []


async def test_labels_and_connectors_are_given_once(gateway: Gateway) -> None:
    admin = gateway["acme.admin"]
    config = {"url": "https://mcp.example/mcp", "connector_id": "c1"}
    ok(await admin.post(SERVERS, json={"label": "a", "config": config}), 201)
    assert refused(await admin.post(SERVERS, json={"label": "a", "config": config}))[0] in {400, 409}
    assert refused(await admin.post(SERVERS, json={"label": "b", "config": config})) == (400, None, "connector_id")
    ok(await gateway["evil.admin"].post(SERVERS, json={"label": "a", "config": config}), 201)


async def test_a_tenant_sees_nothing_of_another(gateway: Gateway) -> None:
    ok(await gateway["acme.admin"].post(SERVERS, json={"label": "demo", "config": {"url": "https://a.example"}}), 201)
    evil = gateway["evil.admin"]
    assert ok(await evil.get(SERVERS))["data"] == []
    assert refused(await evil.get(f"{SERVERS}/demo"))[0] == 404
    assert refused(await evil.delete(f"{SERVERS}/demo"))[0] == 404
    assert refused(await evil.post(f"{SERVERS}/demo/disable"))[0] == 404
    assert refused(await evil.post(f"{SERVERS}/demo/probe"))[0] == 404
    assert ok(await evil.get("/admin/v1/audit/"))["data"] == []


async def test_a_key_for_data_administers_nothing(gateway: Gateway) -> None:
    for path in (SERVERS, "/admin/v1/mcp/policy", "/admin/v1/approvals/", "/admin/v1/audit/"):
        assert refused(await gateway["acme.data"].get(path))[:2] == (403, "insufficient_scope")


@pytest.mark.parametrize("mcp_settings", [{"servers": (OperatorServer(label="ops", command=("true",)),)}])
async def test_servers_of_the_settings_are_shown_and_cannot_be_changed(gateway: Gateway) -> None:
    admin = gateway["acme.admin"]
    (shown,) = ok(await admin.get(SERVERS))["data"]
    assert (shown["label"], shown["source"], shown["transport"]) == ("ops", "file", "stdio")
    assert "command" not in shown
    config = {"url": "https://a.example"}
    assert refused(await admin.post(SERVERS, json={"label": "ops", "config": config}))[0] == 409
    assert refused(await admin.post(f"{SERVERS}/ops/disable"))[:2] == (409, "mcp_server_read_only")
    assert refused(await admin.delete(f"{SERVERS}/ops"))[:2] == (409, "mcp_server_read_only")


async def test_a_probe_says_what_is_there_or_what_is_wrong(gateway: Gateway) -> None:
    admin = gateway["acme.admin"]
    async with mcp_server(demo()) as server:
        ok(await admin.post(SERVERS, json={"label": "demo", "config": {"url": server.url}}), 201)
        probe = ok(await admin.post(f"{SERVERS}/demo/probe"))
    assert (probe["ok"], probe["protocol"], probe["tools"], probe["error"]) == (True, "2026-07-28", 5, None)
    assert probe["server"].startswith("demo")
    gone = {"url": f"http://127.0.0.1:{free_port()}/mcp"}
    ok(await admin.post(SERVERS, json={"label": "gone", "config": gone}), 201)
    probe = ok(await admin.post(f"{SERVERS}/gone/probe"))
    assert probe["ok"] is False
    assert "cannot be reached" in probe["error"]["message"]
    ok(await admin.post(f"{SERVERS}/gone/disable"))
    assert "disabled" in ok(await admin.post(f"{SERVERS}/gone/probe"))["error"]["message"]


async def test_a_changed_tool_shows_its_diff_until_it_is_accepted(gateway: Gateway) -> None:
    admin = gateway["acme.admin"]
    tools: list[dict[str, Any]] = [{"name": "poke", "description": "Pokes.", "inputSchema": {"type": "object"}}]

    async def listing(exchange: Exchange) -> None:
        await exchange.answer({"tools": tools})

    async with raw_server({"tools/list": listing}) as raw:
        ok(await admin.post(SERVERS, json={"label": "raw", "config": {"url": raw.url}}), 201)
        (tool,) = ok(await admin.get(f"{SERVERS}/raw/tools"))["data"]
        assert (tool["name"], tool["decision"], tool["state"], tool["changes"]) == ("poke", "allow", "accepted", {})
        tools[0]["description"] = "Pokes hard."
        (tool,) = ok(await admin.get(f"{SERVERS}/raw/tools"))["data"]
        assert tool["state"] == "quarantined"
        assert tool["changes"] == {"description": {"accepted": "Pokes.", "seen": "Pokes hard."}}
        accept = f"{SERVERS}/raw/tools/accept"
        assert refused(await admin.post(accept, json={"tool": "poke", "digest": "x"}))[0] == 412
        ok(await admin.post(accept, json={"tool": "poke", "digest": tool["digest"]}), 204)
        (tool,) = ok(await admin.get(f"{SERVERS}/raw/tools"))["data"]
        assert tool["state"] == "accepted"


async def test_a_policy_is_read_and_changed_by_version(gateway: Gateway) -> None:
    admin = gateway["acme.admin"]
    before = await admin.get("/admin/v1/mcp/policy")
    assert (ok(before), before.headers["etag"]) == ({"version": 0, "policy": {}}, '"0"')
    strict = {"server_urls": "deny", "second_person": True}
    changed = await admin.put("/admin/v1/mcp/policy", json=strict, headers={"if-match": '"0"'})
    assert ok(changed) == {"version": 1, "policy": strict}
    again = await admin.put("/admin/v1/mcp/policy", json={}, headers={"if-match": '"0"'})
    assert refused(again)[0] == 412
    assert ok(await gateway["evil.admin"].get("/admin/v1/mcp/policy"))["version"] == 0


@pytest.mark.parametrize("opening", [{"allowed_networks": ["10.0.0.0/8"]}, {"allow_loopback": True}])
async def test_a_policy_opens_no_network(gateway: Gateway, opening: dict[str, Any]) -> None:
    answer = await gateway["acme.admin"].put("/admin/v1/mcp/policy", json=opening, headers={"if-match": '"0"'})
    assert refused(answer)[0] == 400
    assert ok(await gateway["acme.admin"].get("/admin/v1/mcp/policy")) == {"version": 0, "policy": {}}


async def test_everything_that_was_changed_is_in_the_log_with_who_did_it(gateway: Gateway) -> None:
    admin, boss = gateway["acme.admin"], gateway["acme.boss"]
    ok(await admin.post(SERVERS, json={"label": "demo", "config": {"url": "https://a.example"}}), 201)
    ok(await boss.post(f"{SERVERS}/demo/disable"))
    ok(await admin.put("/admin/v1/mcp/policy", json={"least": "ask"}, headers={"if-match": '"0"'}))
    ok(await admin.delete(f"{SERVERS}/demo"), 204)
    page = ok(await admin.get("/admin/v1/audit/", params={"limit": 3}))
    assert [each["action"] for each in page["data"]] == ["mcp.server.delete", "mcp.policy.update", "mcp.server.disable"]
    assert page["has_more"] is True
    rest = ok(await admin.get("/admin/v1/audit/", params={"before": page["data"][-1]["number"]}))
    assert [each["action"] for each in rest["data"]] == ["mcp.server.create"]
    assert rest["data"][0]["principal"] != page["data"][-1]["principal"]
    found = ok(await admin.get("/admin/v1/audit/", params={"action": "mcp.policy.update"}))
    assert [each["detail"] for each in found["data"]] == ['{"least":"ask"}']
    export = await admin.get("/admin/v1/audit/export")
    assert [line.split('"action":"')[1].split('"')[0] for line in export.text.splitlines()] == [
        "mcp.server.create", "mcp.server.disable", "mcp.policy.update", "mcp.server.delete",
    ]  # fmt: skip
    asked = {"format": "csv", "action": "mcp.policy.update"}
    export = await admin.get("/admin/v1/audit/export", params=asked)
    assert export.headers["content-type"] == "text/csv; header=present; charset=utf-8"
    assert [row["detail"] for row in csv.DictReader(io.StringIO(export.text))] == ['{"least":"ask"}']
    assert (await admin.get("/admin/v1/audit/export", params={"format": "xml"})).status_code == 400


async def test_approvals_of_nobody_are_none(gateway: Gateway) -> None:
    boss = gateway["acme.boss"]
    assert ok(await boss.get("/admin/v1/approvals/")) == {"data": []}
    assert refused(await boss.post("/admin/v1/approvals/mcpr_1/approve"))[0] == 404
