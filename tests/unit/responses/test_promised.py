"""Schemas are somebody else's, and may be none: whatever they are, nothing breaks here."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from app.responses.promised import unfit
from tests.support.scripted import Scripted, says

WORDS = (
    *("type", "enum", "const", "properties", "required", "items", "prefixItems", "anyOf", "allOf", "oneOf", "not"),
    *("if", "then", "else", "minLength", "maxLength", "minimum", "exclusiveMaximum", "multipleOf", "minItems"),
    *("maxProperties", "additionalProperties", "dependentRequired", "dependentSchemas", "propertyNames", "contains"),
    *("minContains", "$ref", "$defs", "$id", "$anchor", "$schema", "$dynamicRef", "unevaluatedItems", "format"),
)
TYPES = st.sampled_from(["object", "array", "string", "integer", "number", "null", "boolean", "zzz"])
NUMBERS = st.sampled_from([0, 1, -1, 7, 0.0, 1.5, 1e308, 5e-324, 10**30])
WORD = TYPES | st.sampled_from(["", "#", "#/a", "#/$defs/a", "http://x.example", "(", "a"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORD,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from("ab"), inside, max_size=2),
    max_leaves=6,
)
SCHEMAS = st.recursive(
    VALUES | st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=3),
    lambda inside: (
        st.dictionaries(st.sampled_from(WORDS), inside | st.lists(inside, max_size=2), max_size=3)
        | st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inside, max_size=2)})
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(schema=SCHEMAS, value=VALUES)
def test_whatever_a_schema_is_it_breaks_nothing(schema: Any, value: Any) -> None:
    why = unfit(Raw(msgspec.json.encode(schema)), value)
    assert why is None or "(at $" in why


@pytest.mark.parametrize("schema", [{"type": "zzz"}, {"type": [7]}, {"multipleOf": 0}, {"minLength": "a"}])
async def test_a_promise_nobody_can_check_is_taken_as_kept(schema: dict[str, Any]) -> None:
    shape = {"type": "json_schema", "name": "x", "strict": True, "schema": schema}
    for answer in ('"x"', "7"):
        got = await Scripted().ask(says(answer), input="go", text={"format": shape})
        assert got.body["status"] == "completed"
