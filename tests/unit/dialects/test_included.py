"""An item that is read with something is the item that would have been made with it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from app.dialects.openai_responses.encode import ResponseEncoder
from app.dialects.openai_responses.included import ADDED, with_included
from app.dialects.openai_responses.sealed import Sealed
from app.dialects.openai_responses.wire import CreateResponse
from app.turn.events import CallTool, ItemDone, LoopEvent, ToolReturned
from app.turn.ids import CountedIds
from app.turn.items import Reasoning, StoredItem, ToolCall, ToolError, ToolKind, ToolResult

PAGES = '[{"url": "https://sheep.example/a", "title": "Sheep"}]'


def seal(content: Sealed) -> str:
    return f"sealed {content.kind} {content.text}"


def used(kind: ToolKind, arguments: str, output: str, error: ToolError | None = None) -> list[LoopEvent]:
    """A hosted tool, called and answered."""
    call = ToolCall("c", kind, arguments, f"role:{kind}", kind=kind)
    return [
        ItemDone(call),
        CallTool("c", f"role:{kind}", kind, arguments),
        ToolReturned(ToolResult("c", output, error)),
    ]


SEARCH = used("web_search", '{"query": "sheep"}', PAGES)
MADE: dict[str, list[LoopEvent]] = {
    "reasoning.encrypted_content": [ItemDone(Reasoning("hm", ("thought",)))],
    "web_search_call.action.sources": SEARCH,
    "file_search_call.results": used("file_search", '{"query": "sheep"}', "found"),
    "code_interpreter_call.outputs": used("code_interpreter", '{"code": "1+1"}', "2"),
}


def item(events: list[LoopEvent], *include: str) -> StoredItem:
    """The item of these events, as it is made with that."""
    request: Any = CreateResponse(model="m", input="x", include=list(include))  # pyright: ignore[reportArgumentType]
    made = ResponseEncoder(response_id="resp_1", created_at=1, request=request, ids=CountedIds(), seal=seal)
    made.start()
    for event in events:
        made.feed(event)
    (found,) = made.output()
    return found


def test_what_can_be_added_is_known() -> None:
    assert frozenset(MADE) == ADDED


@pytest.mark.parametrize("include", MADE)
def test_it_is_added_as_it_would_have_been_made(include: str) -> None:
    plain, whole = item(MADE[include]), item(MADE[include], include)
    assert plain != whole
    for read in (plain, whole):
        assert fields(with_included(read, ADDED, seal)) == fields(whole)
        assert with_included(read, ADDED - {include}, seal) == read


@pytest.mark.parametrize(
    "events",
    [
        used("web_search", "{}", "it broke", ToolError("mcp_protocol_error", "it broke")),
        used("image_generation", '{"prompt": "a sheep"}', "drew it"),
        [ItemDone(Reasoning(encrypted="theirs"))],
        [ItemDone(Reasoning("", ("thought",)))],
    ],
)
def test_where_there_is_nothing_nothing_is_added(events: list[LoopEvent]) -> None:
    found = item(events)
    assert with_included(found, ADDED, seal) == found


def test_an_item_of_a_client_says_what_the_client_said() -> None:
    search = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"type": "open_page"}}
    for given in (search, {**search, "output": PAGES, "arguments": "{}"}):
        found = StoredItem("ws_1", Raw(msgspec.json.encode(given)))
        assert with_included(found, ADDED, seal) == found


def fields(found: StoredItem) -> dict[str, Any]:
    return msgspec.json.decode(found.raw)
