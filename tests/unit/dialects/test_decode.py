"""Requests in: what is wrong with one names the field; what is right about it reaches the model and is kept."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from app.dialects.openai_responses import decode
from app.dialects.openai_responses.wire import CreateResponse
from app.turn.errors import InvalidRequest
from app.turn.ids import CountedIds
from app.turn.items import Message, Text, ToolCall, ToolResult, ToolSpec
from app.turn.request import McpServer, NamedTool, TurnRequest

FUNCTION: dict[str, Any] = {"type": "function", "name": "look", "parameters": {"type": "object"}}
MCP: dict[str, Any] = {
    "type": "mcp",
    "server_label": "demo",
    "server_url": "https://host/mcp",
    "require_approval": "never",
}
USER: dict[str, Any] = {"role": "user", "content": "hi"}


def request(**fields: Any) -> CreateResponse:
    """The request with these fields, written with line breaks as people do."""
    return decode.decode_create(json.dumps({"model": "m", "input": "hi", **fields}, indent=1).encode())


def tools(asked: CreateResponse) -> tuple[tuple[ToolSpec, ...], tuple[McpServer, ...]]:
    """The client's tools and the servers."""
    read = decode.read_tools(asked.tools)
    return read.specs, read.servers


def turn(asked: CreateResponse) -> TurnRequest:
    """What the model is asked."""
    items = decode.to_items(decode.input_items(asked, CountedIds()))
    return decode.turn_request(asked, items, decode.read_tools(asked.tools))[0]


def stored(*items: dict[str, Any]) -> list[dict[str, Any]]:
    """The items as they are kept."""
    return [msgspec.json.decode(item.raw) for item in decode.input_items(request(input=[*items]), CountedIds())]


# ── what the model is asked ───────────────────────────────────────────────────


def test_the_least_there_is() -> None:
    asked = turn(request())
    assert asked.items == (Message("user", (Text("hi"),)),)
    assert (asked.model, asked.instructions, asked.tools, asked.tool_choice) == ("m", None, (), "auto")
    assert asked.parallel_tool_calls is True


def test_settings_reach_the_model() -> None:
    schema = {"type": "object", "properties": {}}
    asked = turn(
        request(
            instructions="be brief",
            temperature=0,
            top_p=0.5,
            max_output_tokens=20,
            parallel_tool_calls=False,
            stop="END",
            seed=4,
            reasoning={"effort": "low"},
            text={"format": {"type": "json_schema", "name": "sheep", "schema": schema, "strict": True}},
            min_p=0.1,
        )
    )
    assert (asked.instructions, asked.parallel_tool_calls, asked.reasoning_effort) == ("be brief", False, "low")
    sampling = asked.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_output_tokens) == (0.0, 0.5, 20)
    assert (sampling.stop, sampling.seed) == (("END",), 4)
    assert (asked.format.kind, asked.format.name, asked.format.strict) == ("json_schema", "sheep", True)
    assert asked.format.schema is not None
    assert json.loads(bytes(asked.format.schema)) == schema
    assert asked.extra["min_p"] == Raw(b"0.1")


@pytest.mark.parametrize(
    ("include", "given", "asked"), [(True, None, 0), (True, 3, 3), (False, 3, 3), (False, None, None)]
)
def test_logprobs_are_asked_for_either_way(include: bool, given: int | None, asked: int | None) -> None:
    fields = {"include": ["message.output_text.logprobs"]} if include else {}
    assert turn(request(top_logprobs=given, **fields)).sampling.top_logprobs == asked


def test_functions_reach_the_model_as_they_are() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}}
    tool = {"type": "function", "name": "look", "description": "Looks.", "strict": True, "parameters": parameters}
    first, bare, null = tools(
        request(tools=[tool, {"type": "function", "name": "bare"}, {**FUNCTION, "name": "null", "parameters": None}])
    )[0]
    assert (first.name, first.description, first.strict) == ("look", "Looks.", True)
    assert json.loads(bytes(first.parameters)) == parameters
    assert bare.parameters == null.parameters == Raw(b'{"type":"object","properties":{}}')


@pytest.mark.parametrize(
    ("choice", "meant"),
    [(None, "auto"), ("auto", "auto"), ("none", "none"), ("required", "required")],
)
def test_tool_choices(choice: object, meant: str) -> None:
    assert turn(request(tools=[FUNCTION], tool_choice=choice)).tool_choice == meant


def test_a_tool_can_be_chosen_by_name() -> None:
    assert turn(request(tools=[FUNCTION], tool_choice={"type": "function", "name": "look"})).tool_choice == NamedTool(
        "look"
    )


def test_a_server_is_read_with_its_secrets() -> None:
    given = {**MCP, "authorization": "hush", "headers": {"X-Key": "hush"}, "allowed_tools": ["add"]}
    (server,) = tools(request(tools=[given]))[1]
    assert (server.label, server.url, server.authorization) == ("demo", "https://host/mcp", "hush")
    assert server.headers == {"X-Key": "hush"}
    assert "hush" not in repr(server)


def test_two_servers_keep_their_order() -> None:
    given = [{**MCP, "server_label": label} for label in ("b", "a")]
    assert [server.label for server in tools(request(tools=given))[1]] == ["b", "a"]


# ── what is kept ──────────────────────────────────────────────────────────────


def test_text_is_kept_as_a_message() -> None:
    (item,) = decode.input_items(request(), CountedIds())
    assert msgspec.json.decode(item.raw) == {
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": "hi"}],
    }


def test_easy_messages_are_made_whole_and_nothing_is_lost() -> None:
    given = {"role": "user", "content": "hi", "surprise": {"a": [1]}}
    (item,) = stored(given)
    assert item == {
        **given,
        "id": "msg_1",
        "type": "message",
        "status": "completed",
        "content": [{"type": "input_text", "text": "hi"}],
    }


def test_what_an_assistant_said_is_output() -> None:
    (item,) = stored({"role": "assistant", "content": "hi"})
    assert item["content"] == [{"type": "output_text", "text": "hi", "annotations": []}]


def test_ids_are_kept_when_they_are_ids() -> None:
    kept, minted = stored({**USER, "id": "msg_theirs"}, {**USER, "id": "no id!"})
    assert (kept["id"], minted["id"]) == ("msg_theirs", "msg_1")


def test_an_item_of_an_unknown_kind_survives() -> None:
    given = {"type": "acme:weather", "forecast": ["rain"], "id": "w_1"}
    assert stored(given) == [given]


def test_calls_and_results_reach_the_model() -> None:
    asked = turn(
        request(
            input=[
                USER,
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "sheep"},
                {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "", "status": "incomplete"},
            ]
        )
    )
    assert asked.items[1:] == (ToolCall("c1", "look", "{}"), ToolResult("c1", "sheep"))


# ── what is wrong ─────────────────────────────────────────────────────────────

WRONG: list[tuple[dict[str, Any], str | None]] = [
    ({"model": 1}, "model"),
    ({"model": ""}, "model"),
    ({"input": 5}, "input"),
    ({"input": []}, "input"),
    ({"input": [5]}, "input[0]"),
    ({"input": [{}]}, "input[0].type"),
    ({"input": [{"role": "pope", "content": "x"}]}, "input[0].role"),
    ({"input": [USER, {"role": "user"}]}, "input[1].content"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
    ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
    ({"input": [{"type": "function_call", "name": "x", "arguments": ""}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": 1}]}, "input[0].output"),
    ({"input": [{**USER, "id": "msg_1"}, {**USER, "id": "msg_1"}]}, "input"),
    ({"instructions": 1}, "instructions"),
    ({"temperature": 2.5}, "temperature"),
    ({"top_p": -1}, "top_p"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_tool_calls": 0}, "max_tool_calls"),
    ({"metadata": {"a": 1}}, "metadata"),
    ({"metadata": {"a": "x" * 513}}, "metadata"),
    ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    ({"include": ["everything"]}, "include[0]"),
    ({"reasoning": {"effort": "heroic"}}, "reasoning.effort"),
    ({"text": {"verbosity": "chatty"}}, "text.verbosity"),
    ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": None}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": [1]}}}, "text.format.schema"),
    ({"conversation": "conv_1", "previous_response_id": "resp_1"}, "previous_response_id"),
    ({"previous_response_id": "what is this"}, "previous_response_id"),
    ({"prompt": {"version": "1"}}, "prompt.id"),
    ({"prompt": {"id": "pmpt_1", "version": 1}}, "prompt.version"),
    ({"conversation": "resp_1"}, "conversation"),
    ({"conversation": {"id": "conv_$"}}, "conversation"),
    ({"conversation": {}}, "conversation.id"),
    ({"moderation": {"model": "m"}}, "moderation"),
    ({"surprise": 1}, "surprise"),
    ({"tools": [{}]}, "tools[0].type"),
    ({"tools": [{"type": "teleport"}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{**FUNCTION, "name": "a b"}]}, "tools[0].name"),
    ({"tools": [FUNCTION, FUNCTION]}, "tools[1].name"),
    ({"tools": [{**FUNCTION, "parameters": [1]}]}, "tools[0].parameters"),
    ({"tools": [{"type": "mcp"}]}, "tools[0].server_label"),
    ({"tools": [MCP, MCP]}, "tools[1].server_label"),
    ({"tools": [{**MCP, "server_label": "1"}]}, "tools[0].server_label"),
    ({"tools": [{**MCP, "server_url": "ftp://host"}]}, "tools[0].server_url"),
    ({"tools": [{**MCP, "server_url": "http://[::1"}]}, "tools[0].server_url"),
    ({"tools": [{**MCP, "connector_id": "c"}]}, "tools[0].connector_id"),
    ({"tools": [{**MCP, "headers": {"a b": "c"}}]}, "tools[0].headers"),
    ({"tools": [{**MCP, "headers": {"a": "b\nc"}}]}, "tools[0].headers"),
    ({"tools": [{**MCP, "authorization": "a\nb"}]}, "tools[0].authorization"),
    ({"tools": [{**MCP, "authorization": "a", "headers": {"Authorization": "b"}}]}, "tools[0].authorization"),
    ({"tools": [FUNCTION], "tool_choice": "some"}, "tool_choice"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": 5}, "tool_choice"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "function"}}, "tool_choice.name"),
    ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice.name"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=[json.dumps(fields)[:70] for fields, _ in WRONG])
def test_what_is_wrong_names_the_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        turn(request(**fields))
    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning": {"efort": "low"}}, "reasoning.efort"),
        ({"text": {"verbose": True}}, "text.verbose"),
        ({"text": {"format": {"type": "text", "strickt": True}}}, "text.format.strickt"),
        ({"stream_options": {"include_usage": True}}, "stream_options.include_usage"),
        ({"prompt_cache_options": {"warm": True}}, "prompt_cache_options.warm"),
        ({"image": {"detail": "low"}}, "image.detail"),
        ({"context_management": [{"type": "compaction", "at": 9}]}, "context_management[0].at"),
        ({"expires_after": {"anchor": "created_at", "seconds": 9, "days": 1}}, "expires_after.days"),
        ({"prompt": {"id": "pmpt_1", "values": {}}}, "prompt.values"),
        ({"conversation": {"id": "conv_1", "new": True}}, "conversation.new"),
        ({"tools": [{**MCP, "allowed_tool": ["look"]}]}, "tools[0].allowed_tool"),
        ({"tools": [{**MCP, "allowed_tools": {"tool_name": ["look"]}}]}, "tools[0].allowed_tools.tool_name"),
        (
            {"tools": [FUNCTION, {**MCP, "require_approval": {"always": {"tool_name": ["look"]}}}]},
            "tools[1].require_approval.always.tool_name",
        ),
    ],
)
def test_no_field_is_ignored_within_another(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        turn(request(**fields))
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "unknown_parameter", param)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff", b'{"model":"m"', b"[" * 100_000, b'{"model":"\xff"}']
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode.decode_create(body)


@pytest.mark.parametrize(
    ("before", "new", "message"),
    [
        ((), (ToolResult("c1", "x"),), "No tool call found for function call output with call_id c1."),
        ((ToolCall("c1", "look", "{}"),), (), "No tool output found for function call c1."),
        ((ToolCall("c1", "look", "{}"), ToolResult("c1", "x")), (ToolResult("c1", "x"),), "No tool call found"),
    ],
)
def test_calls_and_results_come_in_pairs(before: tuple[Any, ...], new: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        decode.check_pairing((*before, *new), new)
    assert caught.value.param == "input"


def test_pairs_may_span_the_context_and_the_input() -> None:
    new = (ToolResult("c1", "x"), Message("user", (Text("so?"),)))
    decode.check_pairing((ToolCall("c1", "look", "{}"), *new), new)


# ── whatever comes ────────────────────────────────────────────────────────────

names = st.sampled_from(["type", "id", "role", "content", "name"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner),
    max_leaves=6,
)
fields = st.sampled_from(
    [field.encode_name for field in msgspec.structs.fields(CreateResponse) if field.name != "extra"]
)


@given(st.dictionaries(fields, anything, max_size=4))
def test_whatever_comes_is_read_or_refused(given_fields: dict[str, Any]) -> None:
    with suppress(InvalidRequest):
        turn(request(**given_fields))


def test_a_phase_that_is_null_is_none() -> None:
    asked = decode.decode_create(
        b'{"model":"m","input":[{"role":"assistant","content":"a","phase":null},'
        b'{"role":"assistant","content":"b","phase":"commentary"}]}'
    )
    kept = [msgspec.json.decode(item.raw) for item in decode.input_items(asked, CountedIds())]
    assert [each.get("phase", "absent") for each in kept] == ["absent", "commentary"]
