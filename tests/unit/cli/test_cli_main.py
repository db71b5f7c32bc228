"""The command line: what is parsed, what is printed, and which exit code says what."""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import cast

import pytest

from app.cli.flags import given_flags
from app.cli.main import main, parser
from app.settings.explain import document


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SHEPHERD__SERVER__PORT", "SHEPHERD__SERVER__CONFIG"):
        monkeypatch.delenv(name, raising=False)


def test_flags_become_settings_by_path() -> None:
    words = ["serve", "--worker-urls", "http://a", "http://b", "--port", "1", "--log-json", "--worker-urls", "http://c"]
    assert given_flags(parser().parse_args(words)) == {
        "routing.worker_urls": ["http://a", "http://b", "http://c"],
        "server.port": "1",
        "server.log_json": True,
    }
    assert given_flags(parser().parse_args(["serve", "--no-log-json"])) == {"server.log_json": False}


def test_every_flag_the_contract_names_exists() -> None:
    flags = "worker-urls policy host port database-url prometheus-port model-path request-timeout-secs max-payload-size"
    for flag in f"{flags} config log-level".split():
        parser().parse_args(["serve", f"--{flag}", "1"])


def test_bare_flags_mean_serve(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "x", "--worker-urls", "http://a"]) == 2
    assert capsys.readouterr().err == "shepherd: server.port: Expected `int`, got `str` (flag --port)\n"


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["serve", "--help"], ["simulate", "--help"], ["config", "-h"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    assert "usage: shepherd" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("shepherd 0.")


@pytest.mark.parametrize("words", [[], ["nonsense"], ["serve", "--nonsense"], ["serve", "--por", "1"], ["config"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "usage: shepherd" in capsys.readouterr().err


def test_config_explain(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHEPHERD__SERVER__HOST", "::1")
    assert main(["config", "explain", "--port", "31000"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert ["server.port", "31000", "flag --port"] in lines
    assert ["server.host", "::1", "environment variable SHEPHERD__SERVER__HOST"] in lines


def test_config_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config", "check"]) == 0
    (tmp_path / "a.yaml").write_text("routing:\n  polcy: random\n")
    assert main(["config", "check", "--config", "a.yaml", "--port", "-1"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "shepherd: routing.polcy: unknown setting; did you mean routing.policy? (file a.yaml)",
        "shepherd: server.port: Expected `int` >= 0 (flag --port)",
    ]


def test_config_docs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "docs"]) == 0
    assert capsys.readouterr().out == document()


def test_migrate_makes_a_database_and_check_agrees(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    assert main(["migrate", "--database-url", url]) == 0
    assert main(["migrate", "--database-url", url]) == 0
    assert main(["migrate", "--check", "--database-url", url]) == 0
    assert (tmp_path / "a.db").is_file()
    assert capsys.readouterr().out.startswith(f"sqlite:///{tmp_path}/a.db is at ")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://x", "db.url: 'mysql' is not supported"),
        ("sqlite:////nowhere/a.db", "cannot use the database sqlite:////nowhere/a.db: unable to open database file"),
        ("postgresql://ann:hunter2@127.0.0.1:1/x", "cannot use the database postgresql://ann:***@127.0.0.1:1/x: "),
    ],
)
def test_a_database_that_cannot_be_used(url: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--database-url", url]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"shepherd: {said}")
    assert len(told.splitlines()) == 1


LEGAL = b'event: error\ndata: {"type":"error"}\n\n'


def test_check_stream_tells_what_is_wrong(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LEGAL)))
    assert main(["check-stream"]) == 1
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("frames", "code"), [(b"\n", 0), (b'{"type":"response.steer.accepted"}\n', 1), (b"[]\n", 1), (b"{\n", 1)]
)
def test_check_stream_reads_frames(
    frames: bytes, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(frames)))
    assert main(["check-stream", "--socket"]) == code
    assert capsys.readouterr().out.strip()


def test_every_command_does_something() -> None:
    found = list(_named(parser()))
    assert len(found) > 15
    for name in found:
        assert callable(resolve_name(name)), name


def _named(of: argparse.ArgumentParser) -> Iterator[str]:
    run = of.get_default("run")
    if isinstance(run, str):
        yield run
    for action in of._actions:
        if isinstance(action.choices, dict):
            for each in cast("dict[str, argparse.ArgumentParser]", action.choices).values():
                yield from _named(each)


@pytest.mark.parametrize("module", ["app.cli.main", "app.cli.simulate"])
def test_whoever_wants_a_simulated_worker_does_not_load_a_gateway(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"sqlalchemy", "alembic", "mcp", "litestar"}.isdisjoint(loaded)
