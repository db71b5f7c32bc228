"""The container files name only what exists. Whether they build is not known here: there is no Docker."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import yaml

from app.cli.main import parser
from app.settings.load import load
from app.settings.tree import leaves
from tests.docs.pages import ROOT

COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text("utf-8"))
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text("utf-8")


def gateways() -> Iterator[tuple[str, dict[str, object]]]:
    """The services made from our image."""
    for name, service in COMPOSE["services"].items():
        if service["image"] == "shepherd":
            yield name, service


def test_services_run_commands_that_exist() -> None:
    assert {name for name, _ in gateways()} == {"worker", "gateway", "migrate", "gateway-postgres"}
    for _, service in gateways():
        parser().parse_args(service["command"])


def test_their_environment_is_made_of_settings() -> None:
    known = {leaf.variable for leaf in leaves()}
    for _, service in gateways():
        given = {
            name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
            for name, value in (service.get("environment") or {}).items()
        }
        assert set(given) <= known
        load({}, given)
    in_image = dict(re.findall(r"(SHEPHERD__\w+)=(\S+)", DOCKERFILE))
    assert in_image
    assert set(in_image) <= known
    load({}, in_image)


def test_what_is_copied_exists_and_is_let_through() -> None:
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / "deploy" / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    }
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in shlex.split(line)[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert source in allowed


def test_it_does_not_run_as_root() -> None:
    assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]


def test_it_installs_what_is_locked_and_the_same_uv_as_make() -> None:
    assert "--require-hashes" in DOCKERFILE
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.findall(r"'uv[^']*'", DOCKERFILE) == re.findall(r"'uv[^']*'", makefile)


def test_it_is_given_time_to_drain() -> None:
    settings = load({}, {}).settings
    grace = float(COMPOSE["x-gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.responses.drain_secs + settings.server.close_secs
