"""The Open Responses contract (2026-04-24, Apache-2.0, github.com/openresponses/openresponses) as validators."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

CONTRACT = Path(__file__).parents[1] / "data" / "openresponses-openapi.json"
# What its items can be; MCP items keep the names every client knows, and are not among them.
ITEMS = frozenset(("message", "function_call", "function_call_output", "reasoning", "compaction"))


@cache
def _schemas() -> dict[str, Any]:
    return json.loads(CONTRACT.read_text("utf-8"))["components"]["schemas"]


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": _schemas()}}
    return jsonschema.Draft202012Validator(schema)


@cache
def _event_schemas() -> dict[str, str]:
    """Event type → name of its schema."""
    named = {name: schema for name, schema in _schemas().items() if name.endswith("StreamingEvent")}
    return {schema["properties"]["type"]["enum"][0]: name for name, schema in named.items()}


def faults(name: str, value: object) -> list[str]:
    """What the contract's schema `name` has against `value`."""
    return [f"{error.json_path}: {error.message[:200]}" for error in _validator(name).iter_errors(value)]


def has_event(kind: str) -> bool:
    """Whether the contract has an event of this type."""
    return kind in _event_schemas()


def event_faults(event: dict[str, Any]) -> list[str]:
    """What the contract has against a streaming event; an event it does not have is one fault."""
    name = _event_schemas().get(event["type"])
    return faults(name, event) if name is not None else [f"there is no event {event['type']}"]
