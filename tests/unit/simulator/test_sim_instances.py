"""Smallest instances are instances: jsonschema agrees."""

from __future__ import annotations

from typing import Any

import jsonschema
import pydantic
import pytest

from app.simulator.instances import smallest

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "number"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value", "next", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (True, None),
        ({}, None),
        ({"type": "null"}, None),
        ({"type": "boolean"}, False),
        ({"type": ["integer", "null"]}, None),
        ({"type": ["string"]}, ""),
        ({"const": 7}, 7),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": "string", "default": "x"}, "x"),
        ({"type": "string", "minLength": 3}, "xxx"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "integer", "minimum": 3}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "integer", "exclusiveMinimum": 0}, 1),
        ({"type": "integer", "minimum": 2.5}, 3),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "integer", "minimum": -5, "maximum": 5}, 0),
        ({"type": "integer", "minimum": 5, "multipleOf": 4}, 8),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "number", "minimum": 1.5}, 1.5),
        ({"type": "number", "maximum": -2}, -2),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [0, 0]),
        ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 3}, [1, 2, 2]),
        ({"properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 0}),
        ({"allOf": [{"required": ["a"]}, {"properties": {"a": {"type": "string"}}}], "required": ["b"]}, None),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ""),
        (TREE, {"value": 0, "next": None, "children": []}),
    ],
)
def test_it_is_valid_and_small(schema: Any, value: object) -> None:
    made = smallest(schema)
    jsonschema.validate(made, schema)
    if value is not None or not isinstance(schema, dict) or "allOf" not in schema:
        assert made == value


def test_what_contains_itself_without_an_end_ends() -> None:
    schema = {"type": "object", "properties": {"self": {"$ref": "#"}}, "required": ["self"]}
    assert smallest(schema)["self"]["self"] is not None
    assert smallest({"$ref": "#"}) is None
    assert smallest({"$ref": "#/nowhere/at/all"}) is None


class Leg(pydantic.BaseModel):
    length: float = pydantic.Field(gt=0, le=2)
    side: str = pydantic.Field(min_length=1)


class Sheep(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    name: str
    legs: list[Leg] = pydantic.Field(min_length=2)
    friend: Sheep | None
    tags: dict[str, int]


def test_a_pydantic_model_can_be_read_from_it() -> None:
    sheep = Sheep.model_validate(smallest(Sheep.model_json_schema()))
    assert len(sheep.legs) == 2
