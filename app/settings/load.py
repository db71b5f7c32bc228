"""Defaults < file < environment < flags: merging the sources, and reading their values as what they should be."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct

from app.settings.sources import Given, SettingsError, environment, from_environment, from_file, resolve_secret
from app.settings.tree import Leaf, Settings, leaves, sections
from app.telemetry.secret import Secret


class Loaded(Struct, frozen=True):
    """The settings, and which source each value (by path) came from."""

    settings: Settings
    given: Mapping[str, Given]


def load(flags: Mapping[str, Any] | None = None, variables: Mapping[str, str] | None = None) -> Loaded:
    """Read the settings of this process. `flags` are values by path; `variables` stand in for the environment.

    Raises `SettingsError` with every problem found.
    """
    variables = environment() if variables is None else variables
    on_command_line = {
        path: Given(value, "flag", next(leaf.flag or path for leaf in leaves() if leaf.path == path))
        for path, value in (flags or {}).items()
    }
    in_environment = from_environment(variables)
    config = on_command_line.get("server.config") or in_environment.get("server.config")
    in_file = from_file(str(config.value)) if config is not None else {}
    given = {**in_file, **in_environment, **on_command_line}
    problems = list(_unknown(given))
    if "server.config" in in_file:
        problems.append("server.config: a settings file cannot name another one (file)")
    values: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    for leaf in leaves():
        if leaf.path not in given:
            given[leaf.path] = Given(leaf.default, "default", "default")
            continue
        try:
            values[leaf.section][leaf.name] = read(leaf, given[leaf.path], variables)
        except ValueError as error:
            problems.append(f"{leaf.path}{_problem(error)} ({describe(given[leaf.path])})")
    built = _build(values, problems)
    if problems:
        raise SettingsError(*problems)
    return Loaded(cast("Any", Settings)(**built), given)


def describe(given: Given) -> str:
    """The source in words: `environment variable SHEPHERD__SERVER__PORT`."""
    match given.kind:
        case "default":
            return "default"
        case "file":
            return f"file {given.source}"
        case "environment":
            return f"environment variable {given.source}"
        case "flag":
            return f"flag {given.source}"


def read(leaf: Leaf, given: Given, variables: Mapping[str, str]) -> Any:
    """The value of a setting from its raw form. Raises `ValueError` (msgspec's included) when it is not one."""
    raw, text = given.value, given.kind in ("environment", "flag")
    if leaf.secret and isinstance(raw, str) and isinstance(leaf.shape, msgspec.inspect.StrType):
        raw = resolve_secret(raw, variables)[0]
    elif text and isinstance(raw, str):
        raw = _from_text(leaf, raw)
    for path in _unknown_keys(leaf.shape, raw, ""):
        raise ValueError(f"unknown key - at `${path}`")

    def secret(kind: type, value: Any) -> Any:
        if kind is Secret and isinstance(value, str):
            return Secret(*resolve_secret(value, variables))
        raise TypeError(f"Expected `str`, got `{type(value).__name__}`")

    return msgspec.convert(raw, leaf.type, strict=not text, dec_hook=secret)


def _from_text(leaf: Leaf, text: str) -> Any:
    info = msgspec.inspect
    if leaf.is_list and not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    if leaf.is_list or isinstance(leaf.shape, info.DictType | info.StructType | info.UnionType):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise ValueError(f"expected JSON: {error}") from error
    return text


def _unknown(given: Mapping[str, Given]) -> Iterator[str]:
    known = [leaf.path for leaf in leaves()]
    for path, value in given.items():
        if path not in known:
            close = difflib.get_close_matches(path, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            yield f"{path}: unknown setting{hint} ({describe(value)})"


def _unknown_keys(shape: msgspec.inspect.Type, value: Any, path: str) -> Iterator[str]:
    """Paths of keys inside lists and tables of `value` that no Struct has a field for."""
    info = msgspec.inspect
    if isinstance(shape, info.Metadata):
        yield from _unknown_keys(shape.type, value, path)
    elif isinstance(shape, info.CollectionType) and isinstance(value, list):
        for index, each in enumerate(cast("list[Any]", value)):
            yield from _unknown_keys(shape.item_type, each, f"{path}[{index}]")
    elif isinstance(shape, info.DictType) and isinstance(value, dict):
        for key, each in cast("dict[Any, Any]", value).items():
            yield from _unknown_keys(shape.value_type, each, f"{path}.{key}")
    elif isinstance(shape, info.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in shape.fields}
        for key, each in cast("dict[Any, Any]", value).items():
            if key not in fields and key != shape.tag_field:
                yield f"{path}.{key}"
            elif key in fields:
                yield from _unknown_keys(fields[key], each, f"{path}.{key}")


def _problem(error: ValueError) -> str:
    """`: message`, or `[0].url: message` where the error says which part of the value is wrong."""
    message, at, where = str(error).partition(" - at `$")
    return f"{where.rstrip('`')}: {message}" if at else f": {message}"


def _build(values: Mapping[str, Mapping[str, Any]], problems: list[str]) -> dict[str, Struct]:
    built: dict[str, Struct] = {}
    for section, kind in sections().items():
        try:
            built[section] = kind(**values[section])
        except ValueError as error:
            problems.append(f"{section}: {error}")
    return built


def flag_leaves(only: Sequence[str]) -> tuple[Leaf, ...]:
    """The settings of the sections `only` that have a flag."""
    return tuple(leaf for leaf in leaves() if leaf.flag is not None and leaf.section in only)
