"""Prompts are filled completely, in place, or not at all."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dialects.openai_responses.prompts import PromptBody, fill, holes
from app.turn.errors import InvalidRequest

IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
FILE = {"type": "input_file", "file_url": "https://example.org/a.pdf"}


def body(**fields: Any) -> PromptBody:
    return msgspec.json.decode(msgspec.json.encode(fields), type=PromptBody)


def values(**given: Any) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in given.items()}


def items(prompt: PromptBody, **given: Any) -> list[Any]:
    return [msgspec.json.decode(raw) for raw in fill(prompt, values(**given)).input]


def refused(prompt: PromptBody, **given: Any) -> tuple[str | None, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        fill(prompt, values(**given))
    return caught.value.param, caught.value.code


def test_text_goes_into_instructions_and_input() -> None:
    prompt = body(instructions="You are {{who}}. {{ who }}!", input="Greet {{name}}.")
    assert holes(prompt) == ("who", "name")
    filled = fill(prompt, values(who="a sheep", name={"type": "input_text", "text": "Dolly"}))
    assert filled.instructions == "You are a sheep. a sheep!"
    (message,) = [msgspec.json.decode(raw) for raw in filled.input]
    assert message == {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Greet Dolly."}]}


def test_a_picture_takes_the_place_of_its_hole() -> None:
    prompt = body(input=[{"role": "user", "content": "Before {{what}} between {{file}} after {{what}}"}])
    (message,) = items(prompt, what=IMAGE, file=FILE)
    texts = [{"type": "input_text", "text": text} for text in ("Before ", " between ", " after ")]
    assert message["content"] == [texts[0], IMAGE, texts[1], FILE, texts[2], IMAGE]


def test_a_message_that_is_only_a_picture_has_no_empty_text() -> None:
    part = {"type": "input_text", "text": "{{what}}", "prompt_cache_breakpoint": {"mode": "explicit"}}
    (message,) = items(body(input=[{"role": "user", "content": [part]}]), what=IMAGE)
    assert message["content"] == [IMAGE]


def test_text_goes_into_other_places_of_items() -> None:
    image = {"type": "input_image", "image_url": "https://example.org/{{name}}.png"}
    call = {"type": "function_call_output", "call_id": "c", "output": "{{name}}"}
    made = items(body(input=[{"role": "user", "content": [image]}, call]), name="dolly")
    assert made[0]["content"][0]["image_url"] == "https://example.org/dolly.png"
    assert made[1]["output"] == "dolly"


def test_an_assistants_text_stays_the_assistants() -> None:
    (message,) = items(body(input=[{"role": "assistant", "content": "I am {{who}}"}]), who="it")
    assert message["content"] == [{"type": "output_text", "text": "I am it"}]


def test_what_is_not_given_has_the_prompts_own_value() -> None:
    prompt = body(instructions="{{a}} {{b}}", variables={"a": "one"})
    assert fill(prompt, values(b="two")).instructions == "one two"
    assert fill(prompt, values(a="1", b="2")).instructions == "1 2"


def test_a_value_is_not_filled_again() -> None:
    assert fill(body(instructions="{{a}}"), values(a="{{b}}")).instructions == "{{b}}"


@pytest.mark.parametrize(
    ("given", "param", "code"),
    [
        ({}, "prompt.variables.x", "missing_required_parameter"),
        ({"x": "1", "y": "2"}, "prompt.variables.y", "invalid_value"),
        ({"x": 1}, "prompt.variables.x", "invalid_type"),
        ({"x": {"type": "input_audio"}}, "prompt.variables.x.type", "invalid_value"),
        ({"x": {"type": "input_text"}}, "prompt.variables.x.text", "missing_required_parameter"),
        ({"x": {"type": "input_image"}}, "prompt.variables.x.image_url", "missing_required_parameter"),
        ({"x": IMAGE}, "prompt.variables.x", "invalid_type"),
    ],
)
def test_what_is_wrong_names_the_variable(given: dict[str, Any], param: str, code: str) -> None:
    assert refused(body(instructions="{{x}}"), **given) == (param, code)


@given(st.lists(st.tuples(st.text(), st.sampled_from(["{{a}}", "{{ b }}", "{{c}}"])), max_size=6), st.text())
def test_all_text_around_the_holes_is_kept(pieces: list[tuple[str, str]], end: str) -> None:
    pieces = [(text.replace("{", "").replace("}", ""), hole) for text, hole in pieces]
    end = end.replace("{", "").replace("}", "")
    prompt = body(input="".join(text + hole for text, hole in pieces) + end)
    given = {"a": "A", "b": "B", "c": IMAGE}
    used = {name: given[name] for name in holes(prompt)}
    if not prompt.input:
        return
    (message,) = items(prompt, **used)
    seen = "".join(part.get("text", "\0") for part in message["content"])
    filled = {"{{a}}": "A", "{{ b }}": "B", "{{c}}": "\0"}
    assert seen == "".join(text + filled[hole] for text, hole in pieces) + end
