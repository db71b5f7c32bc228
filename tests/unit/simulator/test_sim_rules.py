"""What the simulated model answers, rule by rule. The rules are told to users in docs/simulator.md."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.simulator import rules
from app.simulator.reply import Call, Reply
from app.simulator.wire import chat_request
from app.turn.errors import InvalidRequest
from tests.unit.simulator.sim_world import hello, tool

ADD, ADD_UP, FIND = tool("add"), tool("add_up"), tool("notes.find-all")
NEEDY = tool("needy", properties={"n": {"type": "integer", "minimum": 3}}, required=["n"])


def answer(text: str = "Hello", **fields: Any) -> Reply:
    return rules.answer(chat_request.decode(msgspec.json.encode(hello(text, **fields))))


def calls(text: str, *tools: dict[str, Any], **fields: Any) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in answer(text, tools=list(tools), **fields).calls]


def test_it_says_what_it_was_told() -> None:
    assert answer("Count sheep") == Reply("You said: Count sheep")
    assert answer("") == Reply("You said nothing.")
    assert len(answer("x" * 5000).text) < 1100


def test_it_says_as_many_words_as_it_is_asked_for() -> None:
    assert len(answer("Please say 37 words about sheep").text.split()) == 37
    assert answer("0 words").text == ""


@pytest.mark.parametrize(
    "text", ['add {"a": 1}', 'Please add: {"a": 1}', 'add\n{"a": 1} now', '"add" means add {"a": 1}', '(add {"a": 1})']
)
def test_a_named_tool_with_arguments_is_called_with_exactly_those(text: str) -> None:
    assert calls(text, ADD) == [("add", '{"a": 1}')]


@pytest.mark.parametrize(
    "text",
    [
        "add",
        "add 1 and 2",
        'add {"a": ',
        "add {broken}",
        'other {"a": 1}',
        'my_add {"a": 1}',
        'x.add {"a": 1}',
        "add [1]",
    ],
)
def test_anything_else_is_not_a_call(text: str) -> None:
    assert calls(text, ADD) == []
    assert answer(text, tools=[ADD]).text == f"You said: {text}"


def test_several_in_one_turn_in_order_and_the_longest_name_wins() -> None:
    text = 'add_up {"a": 1} then add {} then notes.find-all {"q": {"add": {}}} then add {"b": "add {}"}'
    assert calls(text, ADD, ADD_UP, FIND) == [
        ("add_up", '{"a": 1}'),
        ("add", "{}"),
        ("notes.find-all", '{"q": {"add": {}}}'),
        ("add", '{"b": "add {}"}'),
    ]
    assert calls(text, ADD, ADD_UP, FIND, parallel_tool_calls=False) == [("add_up", '{"a": 1}')]


def test_tool_choice() -> None:
    text = 'add {"a": 1} and needy {"n": 9}'
    named = {"type": "function", "function": {"name": "needy"}}
    assert calls(text, ADD, NEEDY, tool_choice="none") == []
    assert calls(text, ADD, NEEDY, tool_choice=named) == [("needy", '{"n": 9}')]
    assert calls("Hello", ADD, NEEDY, tool_choice=named) == [("needy", '{"n":3}')]
    assert calls("Hello", NEEDY, ADD, tool_choice="required") == [("needy", '{"n":3}')]
    assert calls("Hello", tool_choice="required") == []


def asked(*results: str) -> list[dict[str, Any]]:
    called = [
        {"id": f"c{n}", "type": "function", "function": {"name": f"tool{n}", "arguments": "{}"}}
        for n, _ in enumerate(results)
    ]
    return [
        {"role": "user", "content": "tool0 {} tool1 {}"},
        {"role": "assistant", "content": None, "tool_calls": called},
        *[{"role": "tool", "tool_call_id": f"c{n}", "content": result} for n, result in enumerate(results)],
    ]


def test_after_results_it_says_them_all_in_order() -> None:
    said = answer(messages=asked("three", "seven"), tools=[tool("tool0")], tool_choice="required")
    assert said == Reply("tool0 returned: three\ntool1 returned: seven")


def test_after_a_result_and_a_new_question_it_answers_the_question() -> None:
    messages = [*asked("three"), {"role": "assistant", "content": "three"}, {"role": "user", "content": "Thanks"}]
    assert answer(messages=messages) == Reply("You said: Thanks")


def test_a_form_is_filled_in() -> None:
    schema = {"type": "object", "properties": {"legs": {"type": "integer"}}, "required": ["legs"]}
    form = {"type": "json_schema", "json_schema": {"name": "sheep", "schema": schema}}
    assert answer(response_format=form).text == '{"legs":0}'
    assert answer(response_format={"type": "json_object"}).text == "{}"
    assert answer(response_format={"type": "text"}).text == "You said: Hello"
    assert answer('add {"a": 1}', tools=[ADD], response_format=form).calls == (Call("add", '{"a": 1}'),)


def test_only_text_of_the_last_user_message_counts() -> None:
    parts = [{"type": "text", "text": "add"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    messages = [
        {"role": "user", "content": 'add {"a": 1}'},
        {"role": "assistant", "content": "No"},
        {"role": "user", "content": parts},
        {"role": "system", "content": 'add {"a": 2}'},
    ]
    assert calls("", ADD, messages=messages) == []


@pytest.mark.parametrize("schema", [{"enum": 7}, {"type": "object", "required": 7}, {"anyOf": 7}, {"minLength": "a"}])
def test_what_is_no_schema_is_refused(schema: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", **schema}}}
    with pytest.raises(InvalidRequest) as refused:
        answer(response_format=form)
    assert refused.value.param == "response_format"
