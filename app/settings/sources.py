"""Where settings come from: a file, the environment, the command line. Raw values and what to call their source.

The only module that reads the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from msgspec import Struct

from app.settings.tree import ENV_PREFIX


class SettingsError(Exception):
    """Settings that cannot be used: every problem found, each naming the setting and where the value came from."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Given(Struct, frozen=True):
    """A raw value and its source. Text from variables and flags still has to be read as the setting's type."""

    value: Any
    kind: Literal["default", "file", "environment", "flag"]
    source: str


def environment() -> dict[str, str]:
    """This process's environment variables."""
    return dict(os.environ)  # noqa: TID251 - this is the place


def from_environment(variables: Mapping[str, str]) -> dict[str, Given]:
    """Every `SHEPHERD__SECTION__NAME`, by `section.name`; unknown names are kept, to be complained about."""
    return {
        name.removeprefix(ENV_PREFIX).lower().replace("__", ".", 1): Given(value, "environment", name)
        for name, value in variables.items()
        if name.startswith(ENV_PREFIX)
    }


def from_file(path: str) -> dict[str, Given]:
    """The values of a TOML or YAML file, by `section.name`. Raises `SettingsError` when it cannot be read."""
    found: dict[str, Given] = {}
    for section, values in _parse(Path(path)).items():
        if values is None:
            continue
        if not isinstance(values, dict):
            raise SettingsError(f"{section}: expected a section with settings in it (file {path})")
        for name, value in cast("dict[Any, Any]", values).items():
            found[f"{section}.{name}"] = Given(value, "file", path)
    return found


def _parse(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"cannot read settings file {path}: {reason}") from error
    try:
        match path.suffix.lower():
            case ".toml":
                data: Any = tomllib.loads(text)
            case ".yaml" | ".yml":
                data = yaml.safe_load(text)
            case other:
                raise SettingsError(
                    f"settings file {path}: expected .toml, .yaml or .yml, not {other or 'no suffix'!r}"
                )
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"settings file {path}: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"settings file {path}: expected sections at the top level")
    return cast("dict[Any, Any]", data)


def resolve_secret(text: str, variables: Mapping[str, str]) -> tuple[str, str | None]:
    """The secret meant by `env:NAME`, `file:PATH` or a literal, and its origin unless it is literal.

    Raises `ValueError` when the variable is not set or the file cannot be read.
    """
    if text.startswith("env:"):
        name = text.removeprefix("env:")
        if name not in variables:
            raise ValueError(f"environment variable {name} is not set")
        return variables[name], text
    if text.startswith("file:"):
        path = Path(text.removeprefix("file:"))
        try:
            return path.read_text(encoding="utf-8").strip(), text
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read {path}") from error
    return text, None
