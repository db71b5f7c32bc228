"""Tools of every kind through the whole service: what the model is offered, and what its calls are shown as."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.dialects.openai_responses.check import check_events
from app.dialects.openai_responses.decode import decode_create
from app.turn.errors import GatewayError, InvalidRequest
from app.turn.request import NamedTool
from tests.support.scripted import Scripted, calls, says

FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
EXEC = {
    "type": "custom",
    "name": "exec",
    "description": "run it",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
NAMESPACE = {"type": "namespace", "name": "functions", "description": "all of it", "tools": [EXEC, FUNCTION]}
MCP = {"type": "mcp", "server_label": "calc", "server_url": "http://mcp.example/mcp", "require_approval": "never"}


def offered(made: Scripted, turn: int = -1) -> list[str]:
    return [tool.name for tool in made.model.asked[turn].tools]


# ── custom, namespace, additional tools ───────────────────────────────────────


async def test_a_custom_tool_is_offered_as_a_function_and_called_with_free_text() -> None:
    made = Scripted()
    text = 'print("hello")\n# ünïcode \U0001f411'
    got = await made.ask(calls(("exec", {"input": text})), input="go", tools=[EXEC])
    (tool,) = made.last.tools
    parameters = msgspec.json.decode(tool.parameters)
    assert parameters["required"] == ["input"]
    assert "start: /.+/" in parameters["properties"]["input"]["description"]
    item = got.item("custom_tool_call")
    assert item["id"].startswith("ctc_")
    assert (item["name"], item["input"], item["call_id"]) == ("exec", text, "call_1")
    said = [event["delta"] for event in got.events if event["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(said) == text


async def test_the_output_of_a_custom_tool_may_be_a_list() -> None:
    made = Scripted()
    first = await made.ask(calls(("exec", {"input": "ls"})), input="go", tools=[EXEC])
    output = {"type": "custom_tool_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "a b"}]}
    await made.ask(says("ok"), input=[output], tools=[EXEC], previous_response_id=first.body["id"])
    told = made.last.items
    assert made.told()[-2] == ("call", 'exec{"input":"ls"}')
    assert told[-1].output[0].text == "a b"


async def test_what_a_model_writes_instead_of_the_object_is_the_text() -> None:
    made = Scripted()
    for arguments, text in (('"bare"', "bare"), ("no json", "no json"), ('{"other": 1}', '{"other": 1}')):
        got = await made.ask(calls(("exec", arguments)), input="go", tools=[EXEC])
        assert got.item("custom_tool_call")["input"] == text


async def test_a_regular_expression_becomes_the_pattern_of_the_text() -> None:
    made = Scripted()
    tool = {**EXEC, "format": {"type": "grammar", "syntax": "regex", "definition": "[a-z]+"}}
    await made.ask(says("x"), input="go", tools=[tool])
    assert msgspec.json.decode(made.last.tools[0].parameters)["properties"]["input"]["pattern"] == "^(?:[a-z]+)$"


async def test_tools_of_a_namespace_have_one_flat_name_for_the_model_and_two_for_the_client() -> None:
    made = Scripted()
    got = await made.ask(
        calls(("functions__exec", {"input": "ls"}), ("functions__look", {})), input="go", tools=[NAMESPACE]
    )
    assert offered(made) == ["functions__exec", "functions__look"]
    call, function = got.output
    assert (call["type"], call["name"], call["namespace"]) == ("custom_tool_call", "exec", "functions")
    assert (function["type"], function["name"], function["namespace"]) == ("function_call", "look", "functions")
    outputs = [
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "a"},
        {"type": "function_call_output", "call_id": "call_2", "output": "b"},
    ]
    await made.ask(says("ok"), input=outputs, tools=[NAMESPACE], previous_response_id=got.body["id"])
    assert [one for one in made.told() if one[0] == "call"] == [
        ("call", 'functions__exec{"input":"ls"}'),
        ("call", "functions__look{}"),
    ]


async def test_a_coding_agent_brings_all_its_tools_in_an_item() -> None:
    made = Scripted()
    tools = {"type": "additional_tools", "role": "developer", "tools": [NAMESPACE]}
    user = {"role": "user", "content": "go"}
    got = await made.ask(calls(("functions__exec", {"input": "ls"})), input=[tools, user], store=False)
    assert offered(made) == ["functions__exec", "functions__look"]
    assert got.item("custom_tool_call")["namespace"] == "functions"


async def test_additional_tools_come_behind_all_others_and_stay() -> None:
    made = Scripted()
    made.tools.add("calc", "sum", "add")
    more = {"type": "additional_tools", "role": "developer", "tools": [EXEC]}
    first = await made.ask(says("x"), input="go", tools=[FUNCTION, MCP])
    before = offered(made)
    user = {"role": "user", "content": "go on"}
    second = await made.ask(says("y"), input=[more, user], tools=[FUNCTION, MCP], previous_response_id=first.body["id"])
    assert offered(made) == [*before, "exec"] == ["look", "add", "sum", "exec"]
    await made.ask(says("z"), input="and", tools=[FUNCTION, MCP], previous_response_id=second.body["id"])
    assert offered(made) == [*before, "exec"]


# ── searching for tools ───────────────────────────────────────────────────────


def deferred(name: str, description: str) -> dict[str, Any]:
    return {**FUNCTION, "name": name, "description": description, "defer_loading": True}


async def test_a_search_of_ours_finds_deferred_functions_and_shows_them_from_then_on() -> None:
    made = Scripted()
    tools = [
        {"type": "tool_search"},
        deferred("get_weather", "The weather of a city"),
        deferred("send_mail", "Send a message to somebody"),
        FUNCTION,
    ]
    got = await made.ask(
        calls(("tool_search", {"query": "weather in a city"})),
        calls(("get_weather", {"c": 1})),
        input="go",
        tools=tools,
    )
    assert got.types == ["tool_search_call", "tool_search_output", "function_call"]
    assert offered(made, 0) == ["tool_search", "look"]
    assert offered(made, 1) == ["tool_search", "look", "get_weather"]
    call, output, _ = got.output
    assert (call["execution"], call["arguments"]) == ("server", {"query": "weather in a city"})
    assert [tool["name"] for tool in output["tools"]] == ["get_weather"]
    result = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}
    within = made.told(1)
    await made.ask(says("nice"), input=[result], tools=tools, previous_response_id=got.body["id"])
    assert offered(made) == ["tool_search", "look", "get_weather"]
    assert made.told()[: len(within)] == within


async def test_a_search_finds_deferred_tools_of_servers_by_stable_names() -> None:
    made = Scripted()
    made.tools.add("calc", "add", "square_root")
    tools = [{**MCP, "defer_loading": True, "server_description": "arithmetic"}, {"type": "tool_search"}]
    got = await made.ask(
        calls(("tool_search", {"query": "square root"})),
        calls(("calc__square_root", {"x": 4})),
        says("2"),
        input="go",
        tools=tools,
    )
    assert got.types == ["mcp_list_tools", "tool_search_call", "tool_search_output", "mcp_call", "message"]
    assert offered(made, 0) == ["tool_search"]
    assert made.tools.called[0].tool == "square_root"
    assert got.item("mcp_call")["name"] == "square_root"
    assert got.item("tool_search_output")["tools"][0]["name"] == "calc"
    whole = made.told()
    await made.ask(says("ok"), input="more", tools=tools, previous_response_id=got.body["id"])
    assert made.told()[: len(whole)] == whole
    assert offered(made) == ["tool_search", "calc__square_root"]


async def test_a_search_the_client_executes_is_its_to_answer() -> None:
    made = Scripted()
    search = {"type": "tool_search", "execution": "client", "parameters": FUNCTION["parameters"]}
    got = await made.ask(calls(("tool_search", {"goal": "x"})), input="go", tools=[search])
    item = got.item("tool_search_call")
    assert (item["execution"], item["arguments"], item["call_id"]) == ("client", {"goal": "x"}, "call_1")
    output = {"type": "tool_search_output", "call_id": "call_1", "execution": "client", "tools": [NAMESPACE]}
    await made.ask(says("ok"), input=[output], tools=[search], previous_response_id=got.body["id"])
    assert offered(made) == ["tool_search", "functions__exec", "functions__look"]
    assert made.told()[-1][1].startswith("These tools can be called now:\n- functions__exec: run it")


async def test_deferred_tools_without_a_search_are_refused() -> None:
    with pytest.raises(InvalidRequest) as refused:
        await Scripted().ask(input="go", tools=[FUNCTION, deferred("x", "y")])
    assert refused.value.param == "tools[1].defer_loading"


# ── shells, patches, computers ────────────────────────────────────────────────

SHAPED: list[tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    (
        "shell",
        "shell_call",
        {"commands": ["ls", "pwd"], "timeout_ms": 5},
        {"action": {"commands": ["ls", "pwd"], "timeout_ms": 5, "max_output_length": None}},
        {
            "type": "shell_call_output",
            "output": [{"stdout": "a", "stderr": "b", "outcome": {"type": "exit", "exit_code": 1}}],
        },
        "exit code 1\na\nstderr:\nb",
    ),
    (
        "local_shell",
        "local_shell_call",
        {"command": ["ls", "-l"]},
        {
            "action": {
                "type": "exec",
                "command": ["ls", "-l"],
                "env": {},
                "timeout_ms": None,
                "user": None,
                "working_directory": None,
            }
        },
        {"type": "local_shell_call_output", "output": "out"},
        "out",
    ),
    (
        "apply_patch",
        "apply_patch_call",
        {"type": "update_file", "path": "a", "diff": "@@\n-x\n+y"},
        {"operation": {"type": "update_file", "path": "a", "diff": "@@\n-x\n+y"}},
        {"type": "apply_patch_call_output", "status": "failed", "output": "no such file"},
        "failed: no such file",
    ),
    (
        "computer",
        "computer_call",
        {"actions": [{"type": "click", "x": 1, "y": 2, "button": "left"}]},
        {"actions": [{"type": "click", "x": 1, "y": 2, "button": "left"}], "pending_safety_checks": []},
        {
            "type": "computer_call_output",
            "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,x"},
        },
        "The screenshot follows.",
    ),
]


@pytest.mark.parametrize(
    ("kind", "item_type", "arguments", "shown", "output", "read"), SHAPED, ids=lambda value: str(value)[:12]
)
async def test_calls_the_client_executes_are_shown_as_their_own_items_and_come_back(
    kind: str, item_type: str, arguments: dict[str, Any], shown: dict[str, Any], output: dict[str, Any], read: str
) -> None:
    made = Scripted()
    tools = [{"type": kind}]
    got = await made.ask(calls((kind, arguments)), input="go", tools=tools)
    item = got.item(item_type)
    assert {name: item[name] for name in shown} == shown
    assert (item["call_id"], item["status"]) == ("call_1", "completed")
    answer = {**output, "call_id": "call_1"}
    await made.ask(says("ok"), input=[answer], tools=tools, previous_response_id=got.body["id"])
    told = made.told()
    call = next(text for role, text in told if role == "call")
    assert call.startswith(kind)
    assert msgspec.json.decode(call.removeprefix(kind)) == {
        **arguments,
        **({"env": {}} if kind == "local_shell" else {}),
    }
    assert ("result", read) in told
    # A client that keeps the conversation itself sends both.
    await made.ask(says("ok"), input=[{"role": "user", "content": "go"}, item, answer], tools=tools, store=False)
    assert ("result", read) in made.told()


async def test_arguments_that_make_no_item_are_the_models_to_mend_and_never_shown() -> None:
    made = Scripted()
    got = await made.ask(
        calls(("shell", {"command": "rm"})),
        calls(("shell", {"commands": ["ls"]})),
        input="go",
        tools=[{"type": "shell"}],
    )
    assert got.types == ["shell_call"]
    role, why = made.told()[-1]
    assert role == "result"
    assert "do not fit" in why


async def test_a_container_is_not_to_be_had() -> None:
    with pytest.raises(InvalidRequest) as refused:
        await Scripted().ask(input="x", tools=[{"type": "shell", "environment": {"type": "container_auto"}}])
    assert (refused.value.param, refused.value.code) == ("tools[0].environment.type", "unsupported_parameter")


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"type": "shell", "environment": "local"}, "tools[0].environment"),
        ({"type": "shell", "environment": {"type": "local", "skill": []}}, "tools[0].environment.skill"),
        ({"type": "shell", "cwd": "/"}, "tools[0].cwd"),
        ({"type": "apply_patch", "dry": True}, "tools[0].dry"),
        ({"type": "computer", "display_width": 100}, "tools[0].display_width"),
        ({"type": "computer_use_preview", "environment": "phone"}, "tools[0].environment"),
        ({"type": "tool_search", "limit": 3}, "tools[0].limit"),
        ({"type": "namespace", "name": "n", "tools": [], "version": 1}, "tools[0].version"),
        (
            {"type": "custom", "name": "f", "format": {"type": "text", "flags": "i"}},
            "tools[0].format.flags",
        ),
    ],
)
async def test_what_nobody_knows_of_a_tool_is_refused(tool: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await Scripted().ask(input="x", tools=[tool])
    assert refused.value.param == param


async def test_the_model_is_told_what_is_there_where_the_client_is() -> None:
    skill = {"name": "shearing", "description": "How sheep are shorn.", "path": "/skills/shearing"}
    screen = {"display_width": 1024, "display_height": 768, "environment": "browser"}
    made = Scripted()
    shell = {"type": "shell", "environment": {"type": "local", "skills": [skill]}}
    await made.ask(says("x"), input="x", tools=[shell, {"type": "computer_use_preview", **screen}])
    told = [tool.description or "" for tool in made.last.tools]
    assert told[0].endswith("\n- shearing in /skills/shearing: How sheep are shorn.")
    assert told[1].endswith(" Its screen is 1024 pixels wide and 768 high. It is of the kind 'browser'.")
    await made.ask(says("x"), input="x", tools=[{"type": "shell", "environment": {"type": "local"}}])
    assert "skill" not in (made.last.tools[0].description or "")


# ── hosted tools ──────────────────────────────────────────────────────────────


async def test_a_web_search_is_played_by_a_server_and_cited() -> None:
    made = Scripted()
    made.tools.roles = {"web_search"}
    made.tools.add("role:web_search", "web_search")
    made.tools.results["web_search"] = lambda _: '[{"url": "https://sheep.example/a", "title": "Sheep"}]'
    got = await made.ask(
        calls(("web_search", {"query": "sheep"})),
        says("See https://sheep.example/a. And https://other.example"),
        input="go",
        tools=[{"type": "web_search_preview"}],
        include=["web_search_call.action.sources"],
    )
    assert got.types == ["web_search_call", "message"]
    assert got.item("web_search_call")["action"] == {
        "type": "search",
        "query": "sheep",
        "queries": ["sheep"],
        "sources": [{"type": "url", "url": "https://sheep.example/a"}],
    }
    steps = [kind for kind in got.kinds if "web_search" in kind]
    assert steps == [f"response.web_search_call.{step}" for step in ("in_progress", "searching", "completed")]
    (annotation,) = got.item("message")["content"][0]["annotations"]
    assert annotation == {
        "type": "url_citation",
        "start_index": 4,
        "end_index": 27,
        "url": "https://sheep.example/a",
        "title": "Sheep",
    }
    assert "response.output_text.annotation.added" in got.kinds
    whole = made.told()
    await made.ask(says("x"), input="on", tools=[{"type": "web_search"}], previous_response_id=got.body["id"])
    assert made.told()[: len(whole)] == whole


@pytest.mark.parametrize(
    ("kind", "arguments", "fields"),
    [
        ("file_search", {"query": "x"}, {"queries": ["x"], "results": None}),
        ("code_interpreter", {"code": "1+1"}, {"code": "1+1", "container_id": "mcp", "outputs": None}),
        ("image_generation", {"prompt": "a sheep"}, {"revised_prompt": "a sheep", "result": None}),
    ],
)
async def test_the_other_hosted_tools_are_played_too(
    kind: Any, arguments: dict[str, Any], fields: dict[str, Any]
) -> None:
    made = Scripted()
    made.tools.roles = {kind}
    made.tools.add(f"role:{kind}", "only")
    got = await made.ask(calls((kind, arguments)), says("ok"), input="go", tools=[{"type": kind}])
    item = got.item(f"{kind}_call")
    assert {name: item[name] for name in fields} == fields
    assert item["status"] == "completed"


async def test_a_picture_is_the_items_result_and_nothing_the_model_reads() -> None:
    made = Scripted()
    made.tools.roles = {"image_generation"}
    made.tools.add("role:image_generation", "draw")
    made.tools.pictures["draw"] = "UElDVFVSRQ=="
    tools = [{"type": "image_generation"}]
    got = await made.ask(calls(("image_generation", {"prompt": "a sheep"})), says("ok"), input="go", tools=tools)
    assert got.item("image_generation_call")["result"] == "UElDVFVSRQ=="
    steps = [kind for kind in got.kinds if "image_generation" in kind]
    assert steps == [f"response.image_generation_call.{step}" for step in ("in_progress", "generating", "completed")]
    whole = made.told()
    assert "UElDVFVSRQ==" not in str(whole)
    await made.ask(says("x"), input="on", tools=tools, previous_response_id=got.body["id"])
    assert made.told()[: len(whole)] == whole


async def test_a_hosted_tool_nobody_plays_is_refused_by_name_or_left_out() -> None:
    with pytest.raises(InvalidRequest) as refused:
        await Scripted().ask(input="x", tools=[FUNCTION, {"type": "web_search", "external_web_access": True}])
    assert (refused.value.param, refused.value.code) == ("tools[1].type", "unsupported_parameter")
    made = Scripted(hosted_tools="omit")
    await made.ask(says("x"), input="x", tools=[FUNCTION, {"type": "web_search"}])
    assert offered(made) == ["look"]


@pytest.mark.parametrize(
    ("tool", "param", "code"),
    [
        ({"type": "web_search", "depth": 3}, "tools[0].depth", "unknown_parameter"),
        ({"type": "web_search", "size": "1x1"}, "tools[0].size", "unknown_parameter"),
        ({"type": "web_search", "search_context_size": "huge"}, "tools[0].search_context_size", "invalid_value"),
        ({"type": "file_search", "max_num_results": 51}, "tools[0].max_num_results", "invalid_value"),
        ({"type": "file_search", "vector_store_ids": "vs_1"}, "tools[0].vector_store_ids", "invalid_type"),
        ({"type": "code_interpreter", "container": 1}, "tools[0].container", "invalid_type"),
        ({"type": "image_generation", "partial_images": 9}, "tools[0].partial_images", "invalid_value"),
    ],
)
async def test_an_option_that_there_is_not_is_refused_by_its_path(tool: dict[str, Any], param: str, code: str) -> None:
    made = Scripted()
    made.tools.roles = {"web_search", "file_search", "code_interpreter", "image_generation"}
    with pytest.raises(InvalidRequest) as refused:
        await made.ask(input="x", tools=[tool])
    assert (refused.value.param, refused.value.code) == (param, code)


async def test_what_is_set_about_a_hosted_tool_goes_to_the_server_that_plays_it() -> None:
    made = Scripted()
    made.tools.roles = {"web_search"}
    made.tools.add("role:web_search", "search")
    where = {"type": "approximate", "country": "NL"}
    tool = {"type": "web_search", "user_location": where, "filters": None, "allowed_callers": ["direct"]}
    await made.ask(says("x"), input="x", tools=[tool])
    ((server,),) = made.tools.named
    assert {name: msgspec.json.decode(value) for name, value in server.options.items()} == {"user_location": where}


async def test_a_hosted_tool_that_is_not_there_fails_the_response() -> None:
    made = Scripted()
    made.tools.roles = {"web_search"}
    with pytest.raises(GatewayError, match="web_search") as refused:
        await made.ask(input="x", tools=[{"type": "web_search"}])
    assert refused.value.code == "tool_unavailable"


# ── tool choice ───────────────────────────────────────────────────────────────


async def test_allowed_tools_leave_the_tools_as_they_are_and_hold_against_every_call() -> None:
    made = Scripted()
    made.tools.add("calc", "add")
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "mcp", "server_label": "calc"}]}
    got = await made.ask(
        calls(("look", {}), ("add", {})), says("ok"), input="go", tools=[FUNCTION, MCP], tool_choice=choice
    )
    assert offered(made, 0) == ["look", "add"]
    assert made.model.asked[0].tool_choice == NamedTool("add")
    assert got.types == ["mcp_list_tools", "mcp_call", "message"]
    assert (
        "result",
        "This tool may not be called in this response. Call one of the allowed tools, or answer without.",
    ) in made.told()


async def test_a_choice_of_a_server_or_one_of_its_tools() -> None:
    made = Scripted()
    made.tools.add("calc", "add", "sub")
    choice = {"type": "mcp", "server_label": "calc"}
    await made.ask(says("x"), input="go", tools=[FUNCTION, MCP], tool_choice=choice)
    assert made.last.tool_choice == "required"
    await made.ask(says("x"), input="go", tools=[FUNCTION, MCP], tool_choice={**choice, "name": "sub"})
    assert made.last.tool_choice == NamedTool("sub")


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "custom", "name": "exec"}, "functions__exec"),
        ({"type": "function", "name": "look", "namespace": "functions"}, "functions__look"),
        ({"type": "shell"}, "shell"),
        ({"type": "apply_patch"}, "apply_patch"),
    ],
)
async def test_a_tool_can_be_chosen_by_its_own_name(choice: dict[str, Any], name: str) -> None:
    made = Scripted()
    tools = [NAMESPACE, {"type": "shell"}, {"type": "apply_patch"}]
    await made.ask(says("x"), input="go", tools=tools, tool_choice=choice)
    assert made.last.tool_choice == NamedTool(name)


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ({"type": "custom", "name": "look"}, "tool_choice.name"),
        ({"type": "mcp", "server_label": "calc"}, "tool_choice.server_label"),
        ({"type": "web_search"}, "tool_choice.type"),
        ({"type": "allowed_tools", "tools": []}, "tool_choice.tools"),
        ({"type": "allowed_tools", "tools": [{"type": "function", "name": "nope"}]}, "tool_choice.tools[0].name"),
        ({"type": "programmatic_tool_calling"}, "tool_choice.type"),
    ],
)
async def test_a_choice_that_cannot_be_made_is_refused(choice: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await Scripted().ask(input="go", tools=[FUNCTION], tool_choice=choice)
    assert refused.value.param == param


async def test_calls_that_must_not_be_parallel_are_not_even_where_the_engine_does_not_care() -> None:
    made = Scripted()
    got = await made.ask(calls(("look", {}), ("look", {})), input="go", tools=[FUNCTION], parallel_tool_calls=False)
    assert got.types == ["function_call"]
    none = await made.ask(calls(("look", {})), input="go", tools=[FUNCTION], tool_choice="none")
    assert none.types == []


# ── what models write ─────────────────────────────────────────────────────────

WRITTEN = (
    *("", "{", "[]", "null", '"x"', "\0", '{"a":' * 3000, '{"\\ud800":1}', '{"a":1}{"b":2}', '{"limit":1e999}'),
    *('{"query":7}', '{"commands":"ls"}', '{"command":7}', '{"actions":[]}', '{"actions":[{"type":7}]}'),
    *('{"type":"x","path":7}', '{"input":7}', '{"input":"x', '{"code":[]}', '{"prompt":null}', "\ud800"),
)


@pytest.mark.parametrize("written", WRITTEN, ids=range(len(WRITTEN)))
@pytest.mark.parametrize("kind", ["shell", "local_shell", "apply_patch", "computer", "tool_search", "custom", "mcp"])
async def test_whatever_a_model_writes_the_response_completes(kind: str, written: str) -> None:
    made = Scripted()
    made.tools.add("demo", "add")
    made.tools.results["add"] = lambda _: "3"
    named = {"custom": {"name": "f"}, "mcp": {"server_label": "demo", "require_approval": "never"}}
    name = {"custom": "f", "mcp": "add"}.get(kind, kind)
    body = decode_create(
        msgspec.json.encode({"model": "m", "input": "x", "tools": [{"type": kind, **named.get(kind, {})}]})
    )
    made.model.turns = [calls((name, written)), says("ok"), says("ok")]
    run = await made.service.create("t", body)
    events = [msgspec.json.decode(event.data) async for batch in run.follow() for event in batch]
    assert check_events(events) == []
    assert events[-1]["type"] == "response.completed"
