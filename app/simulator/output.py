"""A reply as the tokens an engine generates, in segments: thoughts, text, then each call. Pure.

One token is one step of the engine. A segment knows the text that each of its tokens adds, so a stream that stops
anywhere, by a limit or by a fault, has said exactly what its tokens say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec import Struct, structs

from app.simulator.reply import Call, Reply
from app.simulator.tokens import Mark, Tokens, decode, encode, pieces, tokens_of

Kind: TypeAlias = Literal["reasoning", "text", "call"]
Finish: TypeAlias = Literal["stop", "length", "tool_calls"]


class Segment(Struct, frozen=True):
    """A run of tokens of one kind: those before the body, the body's, and those after. Only calls have a `name`."""

    kind: Kind
    lead: Tokens
    body: str
    content: Tokens
    tail: Tokens
    name: str = ""

    def __len__(self) -> int:
        """How many tokens."""
        return len(self.lead) + len(self.content) + len(self.tail)

    def first(self, count: int) -> Segment:
        """Its first `count` tokens, and as much of the body as they say."""
        if count >= len(self):
            return self
        lead, rest = self.lead[:count], max(0, count - len(self.lead))
        content = self.content[:rest]
        return structs.replace(
            self,
            lead=lead,
            content=content,
            body=decode(content, "ignore"),
            tail=self.tail[: rest - len(content)],
            name=self.name if len(lead) == len(self.lead) else "",
        )

    def pieces(self) -> list[str]:
        """What each token adds to the body."""
        return [*[""] * len(self.lead), *pieces(self.body, self.content), *[""] * len(self.tail)]


class Output(Struct, frozen=True):
    """Everything one turn generates."""

    segments: tuple[Segment, ...]
    finish: Finish

    def __len__(self) -> int:
        """How many tokens."""
        return sum(map(len, self.segments))

    @property
    def tokens(self) -> Tokens:
        """All tokens, in order."""
        tokens = tokens_of()
        for segment in self.segments:
            tokens.extend(segment.lead)
            tokens.extend(segment.content)
            tokens.extend(segment.tail)
        return tokens

    @property
    def reasoning_tokens(self) -> int:
        """How many tokens were thoughts."""
        return sum(len(segment) for segment in self.segments if segment.kind == "reasoning")

    def body(self, kind: Kind) -> str:
        """What the segments of a kind say."""
        return "".join(segment.body for segment in self.segments if segment.kind == kind)

    @property
    def calls(self) -> list[Segment]:
        """The calls whose name was said to its end."""
        return [segment for segment in self.segments if segment.kind == "call" and segment.name]

    def first(self, count: int) -> Output:
        """What is left of it when only `count` tokens may be generated."""
        if count >= len(self):
            return self
        kept: list[Segment] = []
        for segment in self.segments:
            if count <= 0:
                break
            kept.append(segment.first(count))
            count -= len(segment)
        return Output(tuple(kept), "length")


def output(reply: Reply, stop: Sequence[str] = ()) -> Output:
    """What an engine generates to say `reply`, ended before the first of the `stop` texts."""
    text, stopped = _stopped(reply.text, stop)
    segments: list[Segment] = []
    if reply.reasoning:
        marks = tokens_of((Mark.THINK,)), tokens_of((Mark.THOUGHT,))
        segments.append(Segment("reasoning", marks[0], reply.reasoning, encode(reply.reasoning), marks[1]))
    if text:
        segments.append(Segment("text", tokens_of(), text, encode(text), tokens_of()))
    calls = () if stopped else reply.calls
    segments.extend(_call(call) for call in calls)
    return Output(tuple(segments), "tool_calls" if calls else "stop")


def _call(call: Call) -> Segment:
    lead = tokens_of((Mark.CALL,))
    lead.extend(encode(call.name))
    lead.append(Mark.ARGUMENTS)
    return Segment("call", lead, call.arguments, encode(call.arguments), tokens_of(), call.name)


def _stopped(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    found = [at for each in stop if each and (at := text.find(each)) >= 0]
    return (text[: min(found)], True) if found else (text, False)
