"""The response object: every required field, what was asked repeated, and no secret in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from app.dialects.openai_responses.decode import decode_create
from app.dialects.openai_responses.encode import ResponseEncoder, body_from
from app.dialects.openai_responses.snapshot import echo
from app.turn.ids import CountedIds
from app.turn.items import StoredItem

REQUIRED = """
    id object created_at completed_at status incomplete_details model previous_response_id instructions output error
    tools tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty top_logprobs
    temperature reasoning usage max_output_tokens max_tool_calls store background service_tier metadata
    safety_identifier prompt_cache_key
""".split()  # noqa: SIM905 - as the contract lists them

FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True, "description": "x"}


def echoed(**fields: Any) -> dict[str, Any]:
    body = json.dumps({"model": "m", "input": "hi", **fields}, indent=1).encode()
    return json.loads(b"{%b}" % echo(decode_create(body)))


def test_every_required_field_is_there() -> None:
    request = decode_create(b'{"model":"m","input":"hi"}')
    encoder = ResponseEncoder(response_id="resp_1", created_at=5, request=request, ids=CountedIds())
    assert sorted(json.loads(encoder.body())) == sorted(REQUIRED)


def test_what_was_not_asked_is_the_default() -> None:
    assert echoed() == {
        "background": False,
        "frequency_penalty": 0.0,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": "m",
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("instructions", "be brief"),
        ("max_output_tokens", 20),
        ("max_tool_calls", 2),
        ("metadata", {"a": "b"}),
        ("parallel_tool_calls", False),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -0.5),
        ("previous_response_id", "resp_0"),
        ("prompt_cache_key", "k"),
        ("prompt_cache_retention", "24h"),
        ("safety_identifier", "s"),
        ("store", False),
        ("temperature", 0.0),
        ("tool_choice", "none"),
        ("top_logprobs", 3),
        ("top_p", 0.25),
        ("user", "u"),
    ],
)
def test_what_was_asked_is_repeated(field: str, value: object) -> None:
    assert echoed(**{field: value})[field] == value


def test_text_and_reasoning_are_whole() -> None:
    schema = {"type": "json_schema", "name": "sheep", "schema": {"type": "object"}, "strict": True}
    said = echoed(text={"format": schema}, reasoning={"effort": "low", "generate_summary": "auto"})
    assert said["text"] == {"format": {**schema, "description": None}, "verbosity": "medium"}
    assert said["reasoning"] == {"effort": "low", "summary": "auto"}
    said = echoed(text={"format": {"type": "json_object"}, "verbosity": "low"})
    assert said["text"] == {"format": {"type": "json_object"}, "verbosity": "low"}


def test_functions_are_repeated_with_every_field() -> None:
    said = echoed(
        tools=[FUNCTION, {"type": "function", "name": "bare"}], tool_choice={"type": "function", "name": "look"}
    )
    bare = {"type": "function", "name": "bare", "description": None, "parameters": None, "strict": None}
    assert said["tools"] == [FUNCTION, bare]
    assert said["tool_choice"] == {"type": "function", "name": "look"}


def test_allowed_tools_are_repeated_with_their_mode() -> None:
    choice = {"type": "allowed_tools", "tools": [{"type": "function", "name": "look"}]}
    assert echoed(tools=[FUNCTION], tool_choice=choice)["tool_choice"] == {**choice, "mode": "auto"}
    required = {**choice, "mode": "required"}
    assert echoed(tools=[FUNCTION], tool_choice=required)["tool_choice"] == required


def test_an_mcp_tool_is_repeated_without_its_secrets() -> None:
    tool = {
        "type": "mcp",
        "server_label": "demo",
        "server_url": "https://user:hush@host:8443/mcp/x?api_key=hush#hush",
        "authorization": "hush",
        "headers": {"x-key": "hush"},
        "allowed_tools": ["add"],
        "require_approval": "never",
    }
    said = echoed(tools=[tool])
    assert "hush" not in json.dumps(said)
    assert said["tools"] == [
        {
            "type": "mcp",
            "server_label": "demo",
            "server_url": "https://host:8443/mcp/x",
            "allowed_tools": ["add"],
            "require_approval": "never",
        }
    ]


def test_a_body_is_a_snapshot_and_its_items() -> None:
    items = tuple(StoredItem(f"i{n}", Raw(b'{"id":"i%d"}' % n)) for n in range(2))
    assert json.loads(body_from(b'{"id":"resp_1"}\n', items)) == {
        "id": "resp_1",
        "output": [{"id": "i0"}, {"id": "i1"}],
    }
    assert json.loads(body_from(Raw(b'{"id":"resp_1"}'), ())) == {"id": "resp_1", "output": []}
