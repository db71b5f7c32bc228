"""A reply as tokens: wherever it is cut, tokens, pieces and bodies say the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.simulator.output import output
from app.simulator.prompt import render
from app.simulator.reply import Call, Reply
from app.simulator.tokens import Mark
from app.simulator.wire import CalledFunction, Message, Tool, ToolCall
from app.simulator.wire import Function as Offered

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
CALL = st.builds(Call, st.text("abc_", min_size=1, max_size=9), TEXT)
REPLY = st.builds(Reply, TEXT, st.lists(CALL, max_size=3).map(tuple), TEXT)


@given(REPLY, st.integers(0, 60))
def test_the_first_tokens_say_the_beginning(reply: Reply, count: int) -> None:
    whole = output(reply)
    first = whole.first(count)
    assert len(first) == min(count, len(whole))
    assert first.tokens == whole.tokens[:count]
    assert first.finish == ("length" if count < len(whole) else whole.finish)
    for segment in first.segments:
        assert len(segment.pieces()) == len(segment)
        assert "".join(segment.pieces()) == segment.body
    for part, all_of_it in zip(first.segments, whole.segments, strict=False):
        assert all_of_it.body.startswith(part.body)
        assert part.name in {"", all_of_it.name}


@given(REPLY)
def test_a_whole_output_says_the_reply(reply: Reply) -> None:
    whole = output(reply)
    assert whole.body("text") == reply.text
    assert whole.body("reasoning") == reply.reasoning
    assert [Call(call.name, call.body) for call in whole.calls] == list(reply.calls)
    assert whole.finish == ("tool_calls" if reply.calls else "stop")
    assert whole.reasoning_tokens == sum(len(part) for part in whole.segments if part.kind == "reasoning")


def test_it_ends_before_the_first_stop_text_and_calls_nothing_then() -> None:
    made = output(Reply("one two three", (Call("add", "{}"),)), ["three", "two", ""])
    assert (made.body("text"), made.finish, made.calls) == ("one ", "stop", [])
    assert output(Reply("one"), ["two"]).body("text") == "one"


@given(TEXT, st.lists(CALL, max_size=3))
def test_the_next_prompt_begins_with_this_prompt_and_this_answer(text: str, calls: list[Call]) -> None:
    asked = [Message("system", "Be brief."), Message("user", "Hello 🐑")]
    tools = [Tool(Offered("add"))]
    said = Message(
        "assistant", text, [ToolCall(f"c{n}", CalledFunction(c.name, c.arguments)) for n, c in enumerate(calls)]
    )
    before = render(asked, tools) + output(Reply(text, tuple(calls))).tokens
    after = render([*asked, said, Message("user", "And then?")], tools)
    assert after[: len(before)] == before
    assert after[len(before)] == Mark.END
