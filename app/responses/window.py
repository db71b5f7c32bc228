"""What to do about a context that grows too long: how long it is, what a summary replaces, what is left out.

Nobody here has the engine's tokenizer. Until the engine has counted a context, its length is estimated: four bytes of
text to a token, which is about right for English and code and errs towards compacting early elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from app.turn.errors import Failure
from app.turn.items import (
    File,
    Image,
    Item,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolListing,
    ToolResult,
    ToolSpec,
)
from app.turn.request import Format, TurnRequest
from app.turn.summary import summarised
from app.turn.usage import Usage

BYTES_PER_TOKEN = 4
IMAGE_TOKENS = 1000
TOO_LONG = "context_length_exceeded"
NO_SUMMARY = Failure(502, "compaction_failed", "The model wrote no summary of the conversation.")

COMPACT_PROMPT = (
    "Summarise the conversation so far for your own use: your summary will replace it, and you will go on from there. "
    "Keep the task and every requirement and decision that still holds; what was done and found, with the names, "
    "paths, numbers and ids that will be needed again; what is unfinished, and the next steps. Write only the summary."
)


class Conversation:
    """What the model is told: the context of the request, and what was said and returned since."""

    def __init__(self, items: tuple[Item, ...] = ()) -> None:
        self.compacted = False
        self._items: list[Item] = list(items)
        self._counted = 0

    @property
    def items(self) -> tuple[Item, ...]:
        """All of it, in order."""
        return tuple(self._items)

    def add(self, *items: Item) -> None:
        """Something more was said."""
        self._items += items

    def count(self, usage: Usage) -> None:
        """The engine has counted what is here, and what it added."""
        self._counted = usage.input_tokens + usage.output_tokens

    def is_full(self, limit: int | None) -> bool:
        """Whether it is time for a summary. There is one in a response: what is still too long after it stays so."""
        return limit is not None and not self.compacted and max(self._counted, tokens(self._items)) >= limit

    def compact(self, summary: str) -> None:
        """Let `summary` stand for everything but what people said."""
        self._items, self.compacted, self._counted = list(summarised(self._items, summary)), True, 0

    def shorten(self) -> bool:
        """Leave out the oldest of it; False when nothing more can be."""
        shorter = shortened(self._items)
        self._items = self._items if shorter is None else list(shorter)
        return shorter is not None


def tokens(items: Sequence[Item]) -> int:
    """About how many tokens the items are."""
    return sum(map(_tokens, items))


def next_turn(
    request: TurnRequest, items: tuple[Item, ...], tools: tuple[ToolSpec, ...], used: Usage
) -> TurnRequest | None:
    """The turn over `items` after a response has `used` so many tokens; None when it has none left to say anything."""
    sampling = request.sampling
    if sampling.max_output_tokens is not None:
        left = sampling.max_output_tokens - used.output_tokens
        if left <= 0:
            return None
        sampling = structs.replace(sampling, max_output_tokens=left)
    return structs.replace(request, items=items, tools=tools, sampling=sampling)


def to_summarise(request: TurnRequest) -> TurnRequest:
    """The turn that asks the model for a summary. Everything before the question stays as it was, tools included: the
    engine has it in its cache."""
    return structs.replace(
        request,
        items=(*request.items, Message("user", (Text(COMPACT_PROMPT),))),
        tool_choice="none",
        format=Format(),
    )


def shortened(items: Sequence[Item]) -> tuple[Item, ...] | None:
    """The items without the oldest quarter; None when nothing more can be left out.

    What tells the model how to behave stays, and so does everything from the last message of the user's on. A call and
    its result go together.
    """
    last = max((index for index, item in enumerate(items) if _is_users(item)), default=len(items))
    movable = [index for index, item in enumerate(items[:last]) if not _is_law(item)]
    goal, gone = max(1, tokens([items[index] for index in movable]) // 4), set[int]()
    dropped = 0
    for index in movable:
        if dropped >= goal:
            break
        dropped += max(1, _tokens(items[index]))
        gone.add(index)
    calls = {item.call_id for index in gone if isinstance(item := items[index], ToolCall)}
    kept = [
        item
        for index, item in enumerate(items)
        if index not in gone and not (isinstance(item, ToolResult) and item.call_id in calls and index < last)
    ]
    answered = {item.call_id for item in kept if isinstance(item, ToolResult)}
    kept = [item for item in kept if not isinstance(item, ToolCall) or item.call_id in answered]
    return tuple(kept) if gone else None


def _is_users(item: Item) -> bool:
    return isinstance(item, Message) and item.role == "user"


def _is_law(item: Item) -> bool:
    return isinstance(item, Message) and item.role in {"system", "developer"}


def _tokens(item: Item) -> int:
    match item:
        case Message():
            return sum(map(_part, item.content))
        case Reasoning():
            return _text(item.text)
        case ToolCall():
            return _text(item.name) + _text(item.arguments)
        case ToolResult():
            return _text(item.output) if isinstance(item.output, str) else sum(map(_part, item.output))
        case ToolListing():
            return 0
        case Opaque():
            return len(bytes(item.raw)) // BYTES_PER_TOKEN


def _part(part: Part) -> int:
    match part:
        case Text() | Refusal():
            return _text(part.text)
        case Image():
            return IMAGE_TOKENS
        case File():
            return _text(part.data or "")
        case _:
            return len(bytes(part.raw)) // BYTES_PER_TOKEN


def _text(text: str) -> int:
    return (len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))) // BYTES_PER_TOKEN
