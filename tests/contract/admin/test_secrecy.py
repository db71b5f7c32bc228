"""What a call leaves behind, and what leaves us: nothing of keys, arguments, results, tokens and session ids."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest

from app.mcp.telemetry import quiet_sdk
from tests.contract.admin.conftest import Gateway
from tests.contract.admin.secret_world import SENTINEL, prepare, respond, secretive
from tests.support.mcp_servers import Running
from tests.support.processes import simulator


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    with simulator() as url:
        yield url


@pytest.fixture
def workers(worker: str) -> tuple[str, ...]:
    return (worker,)


@pytest.fixture(params=["legacy", "modern"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with secretive(modern=request.param == "modern") as running:
        yield running


async def serve(gateway: Gateway, **arguments: str) -> str:
    """What `/mcp` answers to a call."""
    params = {"name": "poke", "arguments": arguments}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {"accept": "application/json, text/event-stream", "host": "127.0.0.1:1"}
    return (await gateway["acme.data"].post("/mcp", json=body, headers=headers)).text


@pytest.fixture(scope="module")
def spans() -> Iterator[InMemorySpanExporter]:
    """What is traced. Tracers keep the provider they met first, so there is one for all tests."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
        yield exporter


@pytest.mark.slow
async def test_no_secret_is_logged_traced_counted_or_audited(
    gateway: Gateway, server: Running, caplog: pytest.LogCaptureFixture, spans: InMemorySpanExporter
) -> None:
    caplog.set_level("DEBUG")
    quiet_sdk()
    await prepare(gateway, server.url)
    done = await respond(gateway, text=f"{SENTINEL}-argument")
    assert done["output"] == f"{SENTINEL}-result"
    failed = [await respond(gateway, how=how) for how in ("status", "nonsense", "hang up")]
    assert all(each["error"] is not None for each in failed)
    # What failed is told by us: a server's own words stay with it.
    assert SENTINEL not in json.dumps([each["error"] for each in failed])
    assert SENTINEL in await serve(gateway, text=f"{SENTINEL}-argument")
    assert SENTINEL not in await serve(gateway, how="status")
    audited = await gateway["acme.admin"].get("/admin/v1/audit/export")
    assert audited.text.count("mcp.tool.call") == 6
    assert SENTINEL not in audited.text
    assert SENTINEL not in generate_latest(gateway.metrics).decode()
    logged = [record.getMessage() + repr(record.__dict__) + str(record.exc_text) for record in caplog.records]
    assert any("MCP tool called" in line for line in logged)
    assert not [line for line in logged if SENTINEL in line]
    assert spans.get_finished_spans()
    assert SENTINEL not in repr([(span.name, span.attributes, span.events) for span in spans.get_finished_spans()])


HEADERS = frozenset(
    [
        *("accept", "accept-encoding", "authorization", "connection", "content-length", "content-type", "host"),
        *("user-agent", "mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id", "cookie", "cache-control"),
    ]
)

# A digest that names a call, and a number that names it to this session.
OURS = frozenset(("shepherd/idempotency-key", "progressToken"))


@pytest.mark.slow
async def test_only_what_must_leaves_us(gateway: Gateway, server: Running) -> None:
    await prepare(gateway, server.url)
    await respond(gateway, text="dolly")
    key = gateway["acme.data"].headers["authorization"].removeprefix("Bearer ")
    assert server.count("tools/call") == 1
    for seen in server.seen:
        assert set(seen.headers) <= HEADERS
        assert seen.headers["authorization"] == f"Bearer {SENTINEL}-credential"
        assert seen.headers["user-agent"] == "shepherd"
        whole = json.dumps([seen.headers, seen.body])
        assert not [word for word in (key, "acme", "baggage", "simulated", "resp_", "key_") if word in whole]
        params = seen.body.get("params") or {}
        meta = params.get("_meta") or {}
        assert all(name.startswith("io.modelcontextprotocol/") for name in meta.keys() - OURS), meta
        # Whoever can neither sample nor list roots says so, in either era.
        assert params.get("capabilities", {}) == {}
        assert meta.get("io.modelcontextprotocol/clientCapabilities", {}) == {}
        about = params.get("clientInfo") or meta.get("io.modelcontextprotocol/clientInfo") or {"name": "shepherd"}
        assert about["name"] == "shepherd"
        if seen.rpc == "tools/call":
            assert params["arguments"] == {"text": "dolly"}
            assert set(params) == {"name", "arguments", "_meta"}
