"""The openai Python SDK against a real gateway: what its users do on the first day."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pydantic
import pytest
from openai.types.responses import ResponseFunctionToolCall

from app.dialects.openai_responses.check import check_sse

MODEL = "simulated"

ADD = {
    "type": "function",
    "name": "add_up",
    "description": "Add two numbers.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "strict": True,
}


def mcp(url: str, **extra: object) -> dict[str, object]:
    return {"type": "mcp", "server_label": "demo", "server_url": url, "require_approval": "never", **extra}


def test_create(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="Hello", metadata={"team": "flock"})
    assert response.status == "completed"
    assert response.output_text
    assert response.metadata == {"team": "flock"}
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens > 0


def test_stream_accumulates_to_the_final_response(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="Tell me about sheep") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == final.output_text
    assert client.responses.retrieve(final.id).output_text == final.output_text


def test_reasoning_is_an_item_before_the_answer(client: openai.OpenAI) -> None:
    response = client.responses.create(model="simulated-reasoning", input="Why?")
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens > 0


def test_parse_with_a_text_format(client: openai.OpenAI) -> None:
    class Sheep(pydantic.BaseModel):
        name: str
        legs: int

    parsed = client.responses.parse(model=MODEL, input="A sheep, please", text_format=Sheep)
    assert isinstance(parsed.output_parsed, Sheep)


def test_tool_loop_by_hand(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input='add_up {"a": 2, "b": 3}', tools=[ADD])
    (call,) = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert json.loads(call.arguments) == {"a": 2, "b": 3}
    second = client.responses.create(
        model=MODEL,
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "the sum is five"}],
        tools=[ADD],
    )
    assert second.status == "completed"
    assert "the sum is five" in second.output_text


def test_previous_response_id_retrieve_input_items_delete(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="My dog is called Shep")
    second = client.responses.create(model=MODEL, input="Good dog", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens

    items = client.responses.input_items.list(second.id, limit=2, order="asc")
    assert items.has_more
    texts = [part.text for item in items for part in item.content]
    assert texts == ["My dog is called Shep", first.output_text, "Good dog"]

    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    assert client.responses.retrieve(second.id).id == second.id


def test_instructions_are_not_inherited(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="Hi", instructions="Speak like a sheep. " * 20)
    plain = client.responses.create(model=MODEL, input="Hi again", previous_response_id=first.id)
    again = client.responses.create(
        model=MODEL, input="Hi again", previous_response_id=first.id, instructions="Speak like a sheep. " * 20
    )
    assert plain.instructions is None
    assert plain.usage.input_tokens < again.usage.input_tokens


def test_store_false_is_gone(client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="Forget me", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="Well?", previous_response_id=response.id)
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"


def test_mcp_loop_with_parallel_calls(client: openai.OpenAI, demo_mcp: str) -> None:
    text = 'add {"a": 1, "b": 2} and search_notes {"query": "sheep"}'
    response = client.responses.create(model=MODEL, input=text, tools=[mcp(demo_mcp)])
    assert [item.type for item in response.output] == ["mcp_list_tools", "mcp_call", "mcp_call", "message"]
    listing, add, search, message = response.output
    assert {tool.name for tool in listing.tools} >= {"add", "search_notes", "slow", "fail"}
    assert (add.name, add.output, add.status, add.error) == ("add", "3", "completed", None)
    assert search.name == "search_notes"
    assert "3" in message.content[0].text


def test_mcp_loop_streamed_is_legal_and_sums_usage(client: openai.OpenAI, demo_mcp: str) -> None:
    text = 'add {"a": 1, "b": 2} then add {"a": 10, "b": 20}'
    with client.responses.stream(model=MODEL, input=text, tools=[mcp(demo_mcp)]) as stream:
        events = list(stream)
    final = events[-1].response
    assert [item.type for item in final.output] == ["mcp_list_tools", "mcp_call", "mcp_call", "message"]
    kinds = [event.type for event in events]
    for kind in (
        "response.mcp_list_tools.completed",
        "response.mcp_call_arguments.done",
        "response.mcp_call.completed",
    ):
        assert kind in kinds
    single = client.responses.create(model=MODEL, input="add nothing")
    assert final.usage.input_tokens > 2 * single.usage.input_tokens


def test_the_listing_is_not_asked_again_on_the_next_turn(client: openai.OpenAI, demo_mcp: str) -> None:
    first = client.responses.create(model=MODEL, input="Hello", tools=[mcp(demo_mcp)])
    second = client.responses.create(
        model=MODEL, input='add {"a": 4, "b": 4}', tools=[mcp(demo_mcp)], previous_response_id=first.id
    )
    assert [item.type for item in second.output] == ["mcp_call", "message"]


def test_allowed_tools_really_filter(client: openai.OpenAI, demo_mcp: str) -> None:
    response = client.responses.create(
        model=MODEL, input='fail {"message": "no"}', tools=[mcp(demo_mcp, allowed_tools=["add"])]
    )
    listing = response.output[0]
    assert [tool.name for tool in listing.tools] == ["add"]
    assert all(item.type != "mcp_call" for item in response.output)


def test_a_failing_tool_is_visible_and_the_model_goes_on(client: openai.OpenAI, demo_mcp: str) -> None:
    response = client.responses.create(model=MODEL, input='fail {"message": "boom"}', tools=[mcp(demo_mcp)])
    call = response.output[1]
    assert call.status == "failed"
    assert call.error is not None
    assert response.output[-1].type == "message"
    assert response.status == "completed"


def test_an_unreachable_server_is_visible_and_others_work(client: openai.OpenAI, demo_mcp: str) -> None:
    dead = {**mcp("http://127.0.0.1:9/mcp"), "server_label": "dead"}
    response = client.responses.create(model=MODEL, input='add {"a": 1, "b": 1}', tools=[dead, mcp(demo_mcp)])
    listings = {item.server_label: item for item in response.output if item.type == "mcp_list_tools"}
    assert listings["dead"].error
    assert listings["dead"].tools == []
    assert any(item.type == "mcp_call" and item.output == "2" for item in response.output)


def test_max_tool_calls_ignores_the_rest(client: openai.OpenAI, demo_mcp: str) -> None:
    text = 'add {"a": 1, "b": 2} add {"a": 3, "b": 4} add {"a": 5, "b": 6}'
    response = client.responses.create(model=MODEL, input=text, tools=[mcp(demo_mcp)], max_tool_calls=2)
    assert [item.output for item in response.output if item.type == "mcp_call"] == ["3", "7"]
    assert response.status == "completed"


def test_operator_servers_nobody_here_wrote(client: openai.OpenAI, repository: object) -> None:
    text = f'get_current_time {{"timezone": "UTC"}} and git_log {{"repo_path": "{repository}"}}'
    response = client.responses.create(
        model=MODEL,
        input=text,
        tools=[
            {"type": "mcp", "server_label": "time", "require_approval": "never"},
            {"type": "mcp", "server_label": "git", "require_approval": "never"},
        ],
    )
    calls = {item.name: item for item in response.output if item.type == "mcp_call"}
    assert calls["get_current_time"].server_label == "time"
    assert "UTC" in calls["get_current_time"].output
    assert "Count the first sheep" in calls["git_log"].output


def test_secrets_are_not_echoed(client: openai.OpenAI, demo_mcp: str) -> None:
    tool = mcp(demo_mcp, authorization="hush-token", headers={"x-secret": "hush-header"})
    response = client.responses.create(model=MODEL, input="Hello", tools=[tool])
    assert "hush" not in response.model_dump_json()
    assert "hush" not in client.responses.retrieve(response.id).model_dump_json()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": MODEL, "input": 5}, "input"),
        ({"model": MODEL, "input": [{"role": "pope", "content": "x"}]}, "input[0].role"),
        ({"input": "x"}, "model"),
        ({"model": MODEL, "input": "x", "temperature": 9}, "temperature"),
        ({"model": MODEL, "input": "x", "conversation": "conv_1", "previous_response_id": "resp_1"}, None),
        ({"model": MODEL, "input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
        ({"model": MODEL, "input": "x", "tools": [ADD, ADD]}, "tools[1].name"),
        ({"model": MODEL, "input": "x", "previous_response_id": "resp_unknown"}, "previous_response_id"),
        ({"model": "nobody", "input": "x"}, "model"),
    ],
)
def test_bad_input_names_the_field(shepherd: str, body: dict[str, object], param: str | None) -> None:
    answer = httpx.post(f"{shepherd}/v1/responses", json=body, timeout=30)
    error = answer.json()["error"]
    assert answer.status_code == (404 if param == "model" and "model" in body else 400), error
    assert error["type"] in {"invalid_request_error", "not_found_error"}
    assert error["message"]
    if param is not None:
        assert error["param"] == param


def test_every_stream_is_legal(shepherd: str, demo_mcp: str) -> None:
    texts = ["Hello", 'add {"a": 1, "b": 2} add {"a": 3, "b": 4}', 'fail {"message": "x"} then add {"a": 1, "b": 1}']
    for model in ("simulated", "simulated-reasoning"):
        for text in texts:
            body = {"model": model, "input": text, "stream": True, "tools": [mcp(demo_mcp)]}
            answer = httpx.post(f"{shepherd}/v1/responses", json=body, timeout=30)
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert check_sse(answer.content) == []


async def test_async_client(shepherd: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{shepherd}/v1", api_key="none", max_retries=0) as client:
        stream = await client.responses.create(model=MODEL, input="Hello", stream=True)
        kinds = [event.type async for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


def test_a_call_is_approved_through_the_real_sdk_and_made_once(client: openai.OpenAI, demo_mcp: str) -> None:
    tools: Any = [{"type": "mcp", "server_label": "demo", "server_url": demo_mcp}]
    asked = client.responses.create(model="simulated", input='add {"a": 20, "b": 22}', tools=tools)
    (request,) = [item for item in asked.output if item.type == "mcp_approval_request"]
    assert (asked.status, request.name) == ("completed", "add")
    answer: Any = [{"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}]
    with client.responses.stream(model="simulated", input=answer, tools=tools, previous_response_id=asked.id) as stream:
        done = stream.get_final_response()
    (call,) = [item for item in done.output if item.type == "mcp_call"]
    assert (call.approval_request_id, call.output) == (request.id, "42")
    with pytest.raises(openai.BadRequestError, match="already"):
        client.responses.create(model="simulated", input=answer, tools=tools, previous_response_id=asked.id)


def test_a_custom_tool_in_a_namespace_through_the_real_sdk(client: openai.OpenAI) -> None:
    exec_tool = {"type": "custom", "name": "exec", "description": "runs code"}
    tools: Any = [{"type": "namespace", "name": "functions", "description": "all", "tools": [exec_tool]}]
    text = 'functions__exec {"input": "print(1)"}'
    with client.responses.stream(model="simulated", input=text, tools=tools) as stream:
        done = stream.get_final_response()
    (call,) = [item for item in done.output if item.type == "custom_tool_call"]
    assert (call.name, call.namespace, call.input) == ("exec", "functions", "print(1)")
