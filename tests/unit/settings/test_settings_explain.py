"""What `config explain` shows, what it hides, and that the documentation is what the settings say."""

from __future__ import annotations

from pathlib import Path

from app.settings.explain import document, explain
from app.settings.load import load
from app.settings.tree import leaves


def line(text: str, path: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(f"{path} ")).split(maxsplit=2)


def test_each_value_and_its_source() -> None:
    text = explain(load({"server.port": "1"}, {"SHEPHERD__SERVER__HOST": "::1"}))
    assert line(text, "server.port") == ["server.port", "1", "flag --port"]
    assert line(text, "server.host") == ["server.host", "::1", "environment variable SHEPHERD__SERVER__HOST"]
    assert line(text, "server.data_dir") == ["server.data_dir", "var", "default"]
    assert len(text.splitlines()) == len(leaves())


def test_secrets_are_not_shown() -> None:
    name = "SHEPHERD__ROUTING__WORKER_API_KEY"
    text = explain(load({}, {name: "hunter2"}))
    assert "hunter2" not in text
    assert line(text, "routing.worker_api_key")[1] == "***"


def test_passwords_in_urls_are_not_shown() -> None:
    text = explain(load({"routing.worker_urls": ["http://ann:hunter2@worker:8000"]}, {}))
    assert "hunter2" not in text
    assert "http://ann:***@worker:8000" in text


def test_the_documentation_is_up_to_date() -> None:
    page = Path(__file__).parents[3] / "docs" / "configuration.md"
    assert page.read_text(encoding="utf-8") == document(), "run: shepherd config docs > docs/configuration.md"
