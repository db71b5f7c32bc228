"""Runs the encoder over what a loop said, and decodes what came out."""

from __future__ import annotations

from typing import Any

import msgspec

from app.dialects.openai_responses.encode import Event, ResponseEncoder
from app.dialects.openai_responses.wire import CreateResponse
from app.turn.events import CallDelta, CallTool, Finish, ItemDone, ListTools, LoopEvent, ToolReturned, ToolsListed
from app.turn.ids import CountedIds, IdSource
from app.turn.items import Message, Part, Text, ToolCall, ToolError, ToolResult, ToolSpec
from app.turn.usage import Usage

Json = dict[str, Any]

USAGE = Usage(30, 10, 5, 2)
COMPLETED = Finish("completed", USAGE)
NOW = 1_700_000_000


class Telling:
    """One response: its encoder, its events, and its events as JSON."""

    def __init__(self, profile: str = "openai", ids: IdSource | None = None, **request: Any) -> None:
        self.profile = profile
        self.encoder = ResponseEncoder(
            response_id="resp_1",
            created_at=NOW,
            request=CreateResponse(**{"model": "m", "input": "hi", **request}),
            ids=ids or CountedIds(),
            profile=profile,
        )
        self.events: list[Event] = self.encoder.start()

    def say(self, *said: LoopEvent) -> list[Json]:
        """What the client is told about it."""
        new = [event for each in said for event in self.encoder.feed(each)]
        self.events += new
        return [decoded(event) for event in new]

    def end(self, finish: Finish = COMPLETED) -> list[Json]:
        """What the client is told at the end."""
        new = self.encoder.close(finish)
        self.encoder.settle(finish, NOW + 5)
        terminal = self.encoder.terminal()
        new += [] if terminal is None else [terminal]
        self.events += new
        return [decoded(event) for event in new]

    @property
    def told(self) -> list[Json]:
        """Everything."""
        return [decoded(event) for event in self.events]

    @property
    def output(self) -> list[Json]:
        """The items that are complete."""
        return [msgspec.json.decode(item.raw) for item in self.encoder.output()]

    @property
    def body(self) -> Json:
        """The response object."""
        return msgspec.json.decode(self.encoder.body())


def decoded(event: Event) -> Json:
    return msgspec.json.decode(event.data)


def kinds(events: list[Json]) -> list[str]:
    """Their types, without what all begin with."""
    return [event["type"].removeprefix("response.") for event in events]


def message(*texts: str | Part, phase: str | None = None) -> ItemDone:
    parts = tuple(Text(text) if isinstance(text, str) else text for text in texts)
    return ItemDone(Message("assistant", parts, phase))


def listed(*tools: ToolSpec, label: str = "demo", error: ToolError | None = None) -> list[LoopEvent]:
    return [ListTools(label), ToolsListed(label, tools, error)]


def delta(call_id: str, arguments: str, tool: str = "add") -> CallDelta:
    return CallDelta(call_id, f"demo__{tool}", arguments, "demo", tool)


def called(call_id: str, arguments: str = "{}", tool: str = "add") -> ItemDone:
    return ItemDone(ToolCall(call_id, f"demo__{tool}", arguments, "demo", tool))


def asked(call_id: str, arguments: str = "{}", tool: str = "add") -> CallTool:
    return CallTool(call_id, "demo", tool, arguments)


def answered(call_id: str, output: str | tuple[Part, ...] = "3", error: ToolError | None = None) -> ToolReturned:
    return ToolReturned(ToolResult(call_id, output, error))
