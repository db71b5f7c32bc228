"""Four sources, one value: precedence, and errors that name the setting and where its value came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.settings.load import Loaded, load
from app.settings.sources import SettingsError
from app.settings.tree import leaves


def loaded(flags: dict[str, Any] | None = None, **variables: str) -> Loaded:
    return load(flags, variables)


def problems(flags: dict[str, Any] | None = None, **variables: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(flags, variables)
    return caught.value.problems


def write(directory: Path, text: str, name: str = "shepherd.toml") -> str:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_defaults_need_nothing() -> None:
    found = loaded()
    assert found.settings.server.port == 30000
    assert found.given["server.port"].kind == "default"


def test_each_source_overrides_the_one_below(tmp_path: Path) -> None:
    config = write(tmp_path, '[server]\nport = 1001\nhost = "file"\nlog_level = "error"\n')
    found = loaded(
        {"server.port": "1003", "server.config": config},
        SHEPHERD__SERVER__PORT="1002",
        SHEPHERD__SERVER__HOST="environment",
    )
    server = found.settings.server
    assert (server.port, server.host, server.log_level) == (1003, "environment", "error")
    assert [found.given[f"server.{name}"].kind for name in ("port", "host", "log_level", "data_dir")] == [
        "flag",
        "environment",
        "file",
        "default",
    ]


@pytest.mark.parametrize("name", ["a.toml", "a.yaml", "a.yml"])
def test_toml_and_yaml_say_the_same(tmp_path: Path, name: str) -> None:
    text = "[server]\nport = 1001\n" if name.endswith("toml") else "server:\n  port: 1001\n"
    assert loaded({"server.config": write(tmp_path, text, name)}).settings.server.port == 1001


def test_the_file_can_be_named_by_a_variable(tmp_path: Path) -> None:
    config = write(tmp_path, "[server]\nport = 1001\n")
    assert loaded(SHEPHERD__SERVER__CONFIG=config).settings.server.port == 1001


def test_an_empty_file_and_an_empty_section_are_fine(tmp_path: Path) -> None:
    assert loaded({"server.config": write(tmp_path, "", "a.yaml")}).settings.server.port == 30000
    assert loaded({"server.config": write(tmp_path, "server:\n", "b.yaml")}).settings.server.port == 30000


@pytest.mark.parametrize("text", ["http://a, http://b", '["http://a", "http://b"]'])
def test_a_list_in_a_variable_is_comma_separated_or_json(text: str) -> None:
    assert loaded(SHEPHERD__ROUTING__WORKER_URLS=text).settings.routing.worker_urls == ("http://a", "http://b")


def test_a_list_from_flags() -> None:
    found = loaded({"routing.worker_urls": ["http://a", "http://b"]})
    assert found.settings.routing.worker_urls == ("http://a", "http://b")


def test_a_table_in_a_variable_is_json() -> None:
    found = loaded(SHEPHERD__ROUTING__MODEL_POLICIES='{"m": "random"}')
    assert found.settings.routing.model_policies == {"m": "random"}
    assert problems(SHEPHERD__ROUTING__MODEL_POLICIES="m=random")[0].startswith("routing.model_policies: expected JSON")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_a_switch_in_a_variable(text: str, value: bool) -> None:
    assert loaded(SHEPHERD__SERVER__LOG_JSON=text).settings.server.log_json is value


def test_a_wrong_value_names_the_setting_and_its_source(tmp_path: Path) -> None:
    assert problems({"server.port": "x"}) == ("server.port: Expected `int`, got `str` (flag --port)",)
    assert problems(SHEPHERD__SERVER__PORT="70000") == (
        "server.port: Expected `int` <= 65535 (environment variable SHEPHERD__SERVER__PORT)",
    )
    config = write(tmp_path, '[server]\nport = "30000"\n')
    assert problems({"server.config": config}) == (f"server.port: Expected `int`, got `str` (file {config})",)


def test_a_wrong_element_names_its_place(tmp_path: Path) -> None:
    config = write(tmp_path, '[routing]\nworker_urls = ["http://a", 7]\n')
    assert problems({"server.config": config}) == (
        f"routing.worker_urls[1]: Expected `str`, got `int` (file {config})",
    )


def test_all_problems_are_told_at_once() -> None:
    assert len(problems({"server.port": "x"}, SHEPHERD__SERVER__LOG_LEVEL="loud", SHEPHERD__NONSENSE="1")) == 3


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("SHEPHERD__SERVER__PROT", "server.prot: unknown setting; did you mean server.port?"),
        ("SHEPHERD__ROUTING__POLICI", "routing.polici: unknown setting; did you mean routing.policy?"),
        ("SHEPHERD__", ": unknown setting"),
    ],
)
def test_an_unknown_variable_is_an_error(variable: str, said: str) -> None:
    assert problems(**{variable: "1"})[0].startswith(said)


def test_an_unknown_key_in_a_file_is_an_error(tmp_path: Path) -> None:
    config = write(tmp_path, "[server]\nprot = 1\n[nonsense]\na = 1\n")
    first, second = problems({"server.config": config})
    assert first == f"server.prot: unknown setting; did you mean server.port? (file {config})"
    assert second == f"nonsense.a: unknown setting (file {config})"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "port = = 1", "Invalid value"),
        ("a.yaml", "server: [", "expected the node content"),
        ("a.yaml", "- 1", "expected sections at the top level"),
        ("a.toml", "port = 1", "port: expected a section with settings in it"),
        ("a.json", "{}", "expected .toml, .yaml or .yml"),
    ],
)
def test_a_file_that_is_no_settings_file(tmp_path: Path, name: str, text: str, said: str) -> None:
    found = problems({"server.config": write(tmp_path, text, name)})
    assert said in found[0]
    assert name in found[0]


def test_a_file_that_is_not_there() -> None:
    assert problems({"server.config": "/nowhere/a.toml"}) == (
        "cannot read settings file /nowhere/a.toml: No such file or directory",
    )


def test_a_file_cannot_name_another(tmp_path: Path) -> None:
    config = write(tmp_path, '[server]\nconfig = "b.toml"\n')
    assert problems({"server.config": config}) == ("server.config: a settings file cannot name another one (file)",)


def test_a_secret_by_variable_by_file_and_literally(tmp_path: Path) -> None:
    path = write(tmp_path, "from-file\n", "key")
    name = "SHEPHERD__ROUTING__WORKER_API_KEY"
    for given, value in ((f"file:{path}", "from-file"), ("env:KEY", "from-env"), ("literal", "literal")):
        assert load({}, {name: given, "KEY": "from-env"}).settings.routing.worker_api_key == value
    assert problems(**{name: "env:KEY"}) == (
        f"routing.worker_api_key: environment variable KEY is not set (environment variable {name})",
    )
    assert "cannot read /nowhere" in problems(**{name: "file:/nowhere"})[0]


def test_flags_and_variables_are_unambiguous() -> None:
    flags = [leaf.flag for leaf in leaves() if leaf.flag and leaf.section != "simulator"]
    assert len(set(flags)) == len(flags)
    assert len({leaf.variable for leaf in leaves()}) == len(leaves())


def test_every_setting_is_documented() -> None:
    assert [leaf.path for leaf in leaves() if not leaf.description] == []
