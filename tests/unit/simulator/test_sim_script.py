"""Scripts: what is found for which conversation, and what is wrong with a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.simulator.reply import Call, Fault
from app.simulator.script import ScriptError, load
from app.simulator.wire import Message

SCRIPT = """
replies:
  - when: '(?i)weather'
    calls: [{name: get_weather, arguments: {city: Paris}}, {name: raw, arguments: 'not json'}]
  - text: First.
  - text: Second.
    reasoning: Hm.
    fault: {cut_after: 1}
"""


def write(directory: Path, text: str) -> str:
    path = directory / "script.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def conversation(*texts: str) -> list[Message]:
    return [Message(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]


def test_a_matching_entry_comes_before_the_sequence(tmp_path: Path) -> None:
    reply = load(write(tmp_path, SCRIPT)).reply(conversation("How is the Weather?"))
    assert reply is not None
    assert reply.calls == (Call("get_weather", '{"city":"Paris"}'), Call("raw", "not json"))


def test_the_sequence_goes_by_the_turns_of_the_conversation(tmp_path: Path) -> None:
    script = load(write(tmp_path, SCRIPT))
    first, second, third = (script.reply(conversation(*["x"] * count)) for count in (1, 3, 5))
    assert first is not None
    assert second is not None
    assert (first.text, second.text, second.reasoning, second.fault) == (
        "First.",
        "Second.",
        "Hm.",
        Fault(cut_after=1),
    )
    assert third is None


def test_a_tool_result_is_what_was_said_last(tmp_path: Path) -> None:
    script = load(write(tmp_path, "replies: [{when: '^42$', text: Right.}]"))
    messages = [*conversation("add", ""), Message("tool", "42")]
    reply = script.reply(messages)
    assert reply is not None
    assert reply.text == "Right."
    assert script.reply(conversation("142")) is None


def test_json_is_a_script_too(tmp_path: Path) -> None:
    reply = load(write(tmp_path, '{"replies": [{"text": "Hi"}]}')).reply(conversation("x"))
    assert reply is not None
    assert reply.text == "Hi"


def test_no_script_says_nothing() -> None:
    assert load(None).reply(conversation("x")) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("replies: [{txt: Hi}]", "unknown field `txt`"),
        ("replies: [{text: 5}]", "$.replies[0].text"),
        ("replies: [{fault: {status: 200}}]", "$.replies[0].fault.status"),
        ("replies: [{when: '('}]", "'(' is no regular expression"),
        ("replies: [", "script"),
        ("answers: []", "answers"),
        ("{}", "replies"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ScriptError, match=r"script .*script\.yaml") as caught:
        load(write(tmp_path, text))
    assert said in str(caught.value)


def test_a_script_that_is_not_there() -> None:
    with pytest.raises(ScriptError, match="cannot read script /nowhere: No such file"):
        load("/nowhere")
