"""A turn as a chat-completions request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from app.dialects.openai_chat.call import Quirks, encode_request
from app.dialects.openai_chat.render import messages, unrendered
from app.turn.items import (
    File,
    Image,
    Item,
    Message,
    Opaque,
    OpaquePart,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolError,
    ToolListing,
    ToolResult,
    ToolSpec,
)
from app.turn.request import Format, NamedTool, Sampling, TurnRequest


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def assistant(text: str) -> Message:
    return Message("assistant", (Text(text),))


def request(**fields: Any) -> TurnRequest:
    return TurnRequest(**{"model": "m", "items": (user("hi"),), **fields})


def body(turn: TurnRequest, **quirks: Any) -> dict[str, Any]:
    return json.loads(encode_request(turn, turn.model, Quirks(**quirks)))


def call(call_id: str, arguments: str = "{}", name: str = "add") -> ToolCall:
    return ToolCall(call_id, name, arguments)


def wire_call(call_id: str, arguments: str = "{}", name: str = "add") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


# ── messages ──────────────────────────────────────────────────────────────────


def test_what_opens_the_context_is_one_system_message() -> None:
    items = (
        Message("developer", (Text("Be brief."),)),
        Message("system", (Text("Be kind."), Text("Be true."))),
        user("Hello"),
        Message("developer", (Text("Now in French."),)),
    )
    assert messages("You are a shepherd.", items) == [
        {"role": "system", "content": "You are a shepherd.\n\nBe brief.\n\nBe kind.\nBe true."},
        {"role": "user", "content": "Hello"},
        {"role": "system", "content": "Now in French."},
    ]


def test_a_context_of_instructions_only() -> None:
    assert messages("Speak.", ()) == [{"role": "system", "content": "Speak."}]
    assert messages(None, ()) == []


def test_text_is_a_string_and_anything_else_a_list_of_parts() -> None:
    parts: tuple[Part, ...] = (
        Text("See:"),
        Image("https://example.org/a.png"),
        Image("data:image/png;base64,AAAA", "high"),
        File(data="data:application/pdf;base64,AAAA", filename="a.pdf"),
        File(file_id="file_1"),
        OpaquePart("input_audio", Raw(b'{"type":"input_audio","input_audio":{"data":"AA","format":"wav"}}')),
    )
    [plain, rich] = json.loads(encode_request(request(items=(user("a"), Message("user", parts))), "m", Quirks()))[
        "messages"
    ]
    assert plain["content"] == "a"
    assert rich["content"] == [
        {"type": "text", "text": "See:"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ]


def test_a_turn_is_one_message_and_its_results_follow() -> None:
    items: tuple[Item, ...] = (
        user("Add things."),
        Reasoning("Two sums."),
        assistant("Let me see."),
        call("a", '{"a":1}'),
        call("b", '{"a":2}'),
        ToolResult("b", "2"),
        ToolResult("a", "1"),
        assistant("Done."),
        user("Thanks"),
    )
    assert messages(None, items) == [
        {"role": "user", "content": "Add things."},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning": "Two sums.",
            "reasoning_content": "Two sums.",
            "tool_calls": [wire_call("a", '{"a":1}'), wire_call("b", '{"a":2}')],
        },
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "assistant", "content": "Done."},
        {"role": "user", "content": "Thanks"},
    ]


def test_results_follow_their_calls_even_when_something_was_said_between() -> None:
    items = (call("a"), call("b"), ToolResult("a", "1"), user("Wait"), assistant("Yes?"), ToolResult("b", "2"))
    assert [(each["role"], each["content"]) for each in messages(None, items)] == [
        ("assistant", ""),
        ("tool", "1"),
        ("tool", "2"),
        ("user", "Wait"),
        ("assistant", "Yes?"),
    ]


def test_a_late_result_does_not_cut_what_was_said() -> None:
    items = (call("a"), call("b"), ToolResult("a", "1"), assistant("Well,"), ToolResult("b", "2"), assistant("yes."))
    assert messages(None, items)[-1] == {"role": "assistant", "content": "Well,\n\nyes."}


def test_calls_one_after_the_other_are_turns_of_their_own() -> None:
    items = (call("a"), ToolResult("a", "1"), call("b"), ToolResult("b", "2"))
    assert [each["role"] for each in messages(None, items)] == ["assistant", "tool", "assistant", "tool"]


def test_a_call_id_that_is_used_again_gets_its_own_result() -> None:
    items = (call("call_0"), ToolResult("call_0", "first"), call("call_0"), ToolResult("call_0", "second"))
    assert [each["content"] for each in messages(None, items) if each["role"] == "tool"] == ["first", "second"]


def test_one_call_object_twice_in_a_context() -> None:
    same = call("call_0")
    items = (same, ToolResult("call_0", "first"), same, ToolResult("call_0", "second"))
    assert [each["content"] for each in messages(None, items) if each["role"] == "tool"] == ["first", "second"]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("", "{}"),
        ("  ", "{}"),
        ("false", '{"invalid_arguments":"false"}'),
        ("[1]", '{"invalid_arguments":"[1]"}'),
        ('{"a": ', '{"invalid_arguments":"{\\"a\\": "}'),
        ('{"a": NaN}', '{"invalid_arguments":"{\\"a\\": NaN}"}'),
    ],
)
def test_arguments_that_are_no_object_do_not_break_the_conversation(given: str, sent: str) -> None:
    [said] = messages(None, (call("a", given),))
    assert said["tool_calls"][0]["function"]["arguments"] == sent
    assert isinstance(json.loads(sent), dict)


def test_a_result_is_text() -> None:
    parts: tuple[Part, ...] = (
        Text("Here:"),
        Image("data:image/png;base64,AAAA"),
        Image("https://example.org/a"),
        File(filename="a.pdf", data="data:application/pdf;base64,AAAA"),
        OpaquePart("resource", Raw(b'{"type":"resource","uri":"x"}')),
    )
    [_, answer] = messages(None, (call("a"), ToolResult("a", parts)))
    assert answer["content"] == (
        'Here:\n[image/png, not shown]\n[image, not shown]\n[file a.pdf, not shown]\n{"type":"resource","uri":"x"}'
    )


def test_a_failed_call_says_what_failed() -> None:
    failed = ToolResult("a", "The server is away.", ToolError("http_error", "The server is away.", 503))
    assert messages(None, (call("a"), failed))[1]["content"] == "The server is away."


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("both", {"reasoning", "reasoning_content"}),
        ("reasoning", {"reasoning"}),
        ("reasoning_content", {"reasoning_content"}),
        ("none", set()),
    ],
)
def test_thinking_goes_back_in_the_field_the_engine_reads(field: Any, names: set[str]) -> None:
    [said] = messages(None, (Reasoning("Hm."), Reasoning("Yes."), assistant("So.")), field)
    assert set(said) == {"role", "content", *names}
    assert all(said[name] == "Hm.\n\nYes." for name in names)


def test_what_cannot_be_shown_is_left_out() -> None:
    items = (
        Opaque("computer_call", Raw(b'{"type":"computer_call"}')),
        ToolListing("demo", (ToolSpec("add", Raw(b"{}")),)),
        user("Hello"),
        Reasoning(encrypted="sealed"),
        Opaque("compaction", Raw(b"{}")),
        Opaque("compaction", Raw(b"{}")),
    )
    assert messages(None, items) == [{"role": "user", "content": "Hello"}]
    assert unrendered(items) == ("compaction", "computer_call")


def test_a_refusal_is_what_the_assistant_said() -> None:
    assert messages(None, (Message("assistant", (Refusal("No."),)),)) == [{"role": "assistant", "content": "No."}]


# ── the rest of the request ───────────────────────────────────────────────────


def test_a_small_request() -> None:
    assert body(request()) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_tools() -> None:
    tools = (
        ToolSpec("add", Raw(b'{"type":"object","properties":{"b":{},"a":{}}}'), "Adds.", True),
        ToolSpec("now", Raw(b"null")),
    )
    raw = encode_request(request(tools=tools, parallel_tool_calls=False), "m", Quirks())
    assert b'"parameters":{"type":"object","properties":{"b":{},"a":{}}}' in raw
    sent = json.loads(raw)
    assert sent["tool_choice"] == "auto"
    assert sent["parallel_tool_calls"] is False
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["add", "now"]
    assert sent["tools"][0]["function"] | {"parameters": None} == {
        "name": "add",
        "description": "Adds.",
        "parameters": None,
        "strict": True,
    }
    assert sent["tools"][1]["function"] == {"name": "now", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.parametrize("choice", ["none", "required", "auto"])
def test_tool_choice(choice: Any) -> None:
    tools = (ToolSpec("add", Raw(b"{}")),)
    assert body(request(tools=tools, tool_choice=choice))["tool_choice"] == choice
    assert "tool_choice" not in body(request(tool_choice=choice))
    named = body(request(tools=tools, tool_choice=NamedTool("add")))["tool_choice"]
    assert named == {"type": "function", "function": {"name": "add"}}


def test_formats() -> None:
    assert "response_format" not in body(request())
    assert body(request(format=Format(kind="json_object")))["response_format"] == {"type": "json_object"}
    wanted = Format(kind="json_schema", name="sheep", schema=Raw(b'{"type":"object"}'), strict=True)
    assert body(request(format=wanted))["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "sheep", "schema": {"type": "object"}, "strict": True},
    }


def test_sampling() -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=0.5,
        max_output_tokens=7,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        top_logprobs=0,
        seed=3,
        stop=("END",),
    )
    sent = body(request(sampling=sampling, reasoning_effort="low"))
    assert {name: sent[name] for name in sent if name not in ("model", "messages", "stream", "stream_options")} == {
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 7,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
        "logprobs": True,
        "top_logprobs": 0,
        "seed": 3,
        "stop": ["END"],
        "reasoning_effort": "low",
    }
    renamed = body(request(sampling=sampling), limit_field="max_completion_tokens")
    assert renamed["max_completion_tokens"] == 7
    assert "max_tokens" not in renamed


def test_engine_fields_go_through_verbatim_and_replace_nothing() -> None:
    extra = {"top_k": Raw(b"20"), "stream": Raw(b"false"), "chat_template_kwargs": Raw(b'{"b": 1,  "a": 2}')}
    raw = encode_request(request(extra=extra), "m", Quirks())
    assert b'"chat_template_kwargs":{"b": 1,  "a": 2}' in raw
    sent = json.loads(raw)
    assert sent["top_k"] == 20
    assert sent["stream"] is True


def test_equal_turns_are_equal_bytes_and_a_longer_one_begins_the_same() -> None:
    first = request(items=(user("a"), assistant("b")), tools=(ToolSpec("add", Raw(b"{}")),), instructions="x")
    longer = request(items=(*first.items, user("c")), tools=first.tools, instructions="x")
    one, again, more = (encode_request(turn, "m", Quirks()) for turn in (first, first, longer))
    assert one == again
    shared = one[: one.index(b'"b"')]
    assert more.startswith(shared)


# ── custom tools ──────────────────────────────────────────────────────────────

GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /x+/"}
CODE = ToolSpec("code", Raw(b"{}"), description="Run it.", kind="custom", grammar=Raw(json.dumps(GRAMMAR).encode()))


def test_a_custom_tool_is_one_to_an_engine_that_has_them() -> None:
    tools = (CODE, ToolSpec("note", Raw(b"{}"), kind="custom"), ToolSpec("add", Raw(b"{}")))
    turn = request(tools=tools, tool_choice=NamedTool("code"))
    sent = body(turn, custom_tools="custom")
    grammar = {"syntax": "lark", "definition": "start: /x+/"}
    format_ = {"type": "grammar", "grammar": grammar}
    assert sent["tools"] == [
        {"type": "custom", "custom": {"name": "code", "description": "Run it.", "format": format_}},
        {"type": "custom", "custom": {"name": "note"}},
        {"type": "function", "function": {"name": "add", "parameters": {}}},
    ]
    assert sent["tool_choice"] == {"type": "custom", "custom": {"name": "code"}}
    assert {each["type"] for each in body(turn)["tools"]} == {"function"}


@pytest.mark.parametrize(
    ("arguments", "text"), [('{"input":"a\\n"}', "a\n"), ("no object", "no object"), ('{"input":7}', '{"input":7}')]
)
def test_a_call_of_one_goes_back_as_its_text(arguments: str, text: str) -> None:
    said = ToolCall("c1", "code", arguments, kind="custom")
    sent = body(request(items=(user("x"), said, ToolResult("c1", "y"), call("c2"))), custom_tools="custom")
    assert sent["messages"][1]["tool_calls"] == [
        {"id": "c1", "type": "custom", "custom": {"name": "code", "input": text}}
    ]
    assert sent["messages"][3]["tool_calls"][0]["type"] == "function"
