"""`shepherd mcp …` against a gateway that runs."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.boot.listening import Stop
from app.boot.serve import serve
from app.boot.tenants import create_key, create_tenant
from app.cli.main import main
from app.db.settings import DatabaseSettings
from app.settings.server import ServerSettings
from app.settings.tree import Settings
from tests.support.mcp_servers import demo, mcp_server


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[list[str]]:
    """The flags that say where the gateway is and who asks."""
    settings = Settings(
        server=ServerSettings(data_dir=str(tmp_path), port=0), db=DatabaseSettings(sqlite_synchronous="normal")
    )
    await create_tenant(settings, "acme")
    _, key = await create_key(settings, "acme", "boss", ("admin",), None)
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = Stop()
    serving = asyncio.create_task(serve(settings, stop, url.set_result))
    yield ["--url", await asyncio.wait_for(url, 60), "--key", key]
    stop.ask()
    await serving


async def shepherd(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = await asyncio.to_thread(main, ["mcp", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


async def test_a_server_is_managed(gateway: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    async with mcp_server(demo()) as server:
        assert (await shepherd(capsys, "add", *gateway, "demo", server.url))[0] == 0
        assert json.loads((await shepherd(capsys, "list", *gateway))[1])[0]["label"] == "demo"
        probe = json.loads((await shepherd(capsys, "probe", *gateway, "demo"))[1])
        # With keys about, servers on this machine are nobody's to name unless the operator says so.
        assert "not on the public internet" in probe["error"]["message"]
    config = '{"url": "https://mcp.example/mcp", "rules": {"default": "ask"}}'
    assert (await shepherd(capsys, "set", *gateway, "demo", config))[0] == 0
    assert json.loads((await shepherd(capsys, "show", *gateway, "demo"))[1])["version"] == 2
    assert (await shepherd(capsys, "disable", *gateway, "demo"))[0] == 0
    assert (await shepherd(capsys, "set-policy", *gateway, '{"server_urls": "deny"}'))[0] == 0
    assert json.loads((await shepherd(capsys, "policy", *gateway))[1])["version"] == 1
    assert (await shepherd(capsys, "remove", *gateway, "demo"))[0] == 0
    code, _, err = await shepherd(capsys, "show", *gateway, "demo")
    assert (code, err) == (1, "shepherd: There is no MCP server 'demo'.\n")
    log = json.loads((await shepherd(capsys, "audit", *gateway))[1])
    assert log[0]["action"] == "mcp.server.delete"


async def test_the_log_is_written_out(gateway: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for label in ("one", "two"):
        assert (await shepherd(capsys, "add", *gateway, label, "https://mcp.example/mcp"))[0] == 0
    code, out, _ = await shepherd(capsys, "export-audit", *gateway, "--server", "two")
    assert code == 0
    assert [json.loads(line)["server"] for line in out.splitlines()] == ["two"]
    path = tmp_path / "audit.csv"
    since = "--since", "2020-01-01T00:00:00Z"
    words = ("--format", "csv", "--output", str(path), *since)
    assert await shepherd(capsys, "export-audit", *gateway, *words) == (0, "", "")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["server"], row["action"]) for row in rows] == [
        ("one", "mcp.server.create"), ("two", "mcp.server.create"),
    ]  # fmt: skip
    assert (await shepherd(capsys, "export-audit", *gateway, "--until", "1000"))[1] == ""
    wrong = ["--url", gateway[1], "--key", "nobody"]
    assert await shepherd(capsys, "export-audit", *wrong) == (1, "", "shepherd: Incorrect API key provided.\n")


async def test_nobody_there_or_nobody_known(gateway: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = await shepherd(capsys, "list", "--url", "http://127.0.0.1:1")
    assert code == 1
    assert "does not answer" in err
    code, _, err = await shepherd(capsys, "list", *gateway[:2], "--key", "wrong")
    assert (code, err) == (1, "shepherd: Incorrect API key provided.\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "x", "https://a.example", "--config", "[]"], "a JSON object is expected"),
        (["set-policy", "{bad"], "a JSON object is expected"),
        (["export-audit", "--since", "yesterday"], "a moment is expected"),
    ],
)
def test_what_cannot_be_understood_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["mcp", *words])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


async def test_what_cannot_be_read_or_written_is_said(
    gateway: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"kind": "bearer", "token": sentinel'))
    refused = (1, "", "shepherd: what is on the standard input is not JSON\n")
    assert await shepherd(capsys, "set-credential", *gateway, "x") == refused
    code, _, err = await shepherd(capsys, "export-audit", *gateway, "--output", "/nowhere/audit")
    assert (code, err) == (1, "shepherd: cannot write /nowhere/audit: No such file or directory\n")
    # A label leads nowhere else, whatever is in it.
    for words in (["show", *gateway, "../policy"], ["set", *gateway, "../policy", "{}"]):
        code, _, err = await shepherd(capsys, *words)
        assert code == 1
        assert err.startswith("shepherd: Unknown request URL: GET /admin/v1/mcp/servers/../policy.")
