"""Output items in the making: how each kind begins, what it says meanwhile, and how it ends.

`Output` gives out the indices and holds back what would come too early: items may be written side by side, but their
`output_item.done` events come in the order of their indices, since clients rebuild the conversation from those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias

from msgspec import Raw, Struct

from app.dialects.openai_responses.events import Event, EventWriter, Streamed, Wording, encode, members
from app.dialects.openai_responses.parts import part_to_wire
from app.dialects.openai_responses.sealed import Seal, Sealed
from app.dialects.openai_responses.sources import citations
from app.turn.items import Message, Reasoning, Refusal, StoredItem, Text

Ending: TypeAlias = Literal["completed", "incomplete", "failed"]

_SUMMARY = Wording("response.reasoning_summary_text.delta", "response.reasoning_summary_text.done", "text")


class PartKind(Struct, frozen=True):
    """A kind of content part: the field its text is in, its events, and what else belongs to it."""

    type: str
    field: str
    words: Wording
    extra: Mapping[str, object]
    tail: bytes = b""


TEXT = PartKind(
    "output_text",
    "text",
    Wording("response.output_text.delta", "response.output_text.done", "text"),
    {"annotations": [], "logprobs": []},
    b',"logprobs":[]',
)
REFUSAL = PartKind("refusal", "refusal", Wording("response.refusal.delta", "response.refusal.done", "refusal"), {})
# The two contracts name the events of reasoning differently; nothing else of it differs.
REASONING: Mapping[str, PartKind] = {
    profile: PartKind("reasoning_text", "text", Wording(f"{name}.delta", f"{name}.done", "text"), {})
    for profile, name in {"openai": "response.reasoning_text", "openresponses": "response.reasoning"}.items()
}


NO_SOURCES: Mapping[str, str] = MappingProxyType({})


class Output:
    """The output of a response: its items by index, and the events that announce and conclude them."""

    def __init__(self, writer: EventWriter, concluded: Sequence[StoredItem] = ()) -> None:
        self.writer = writer
        self._items: list[StoredItem | None] = [*concluded]
        self._concluded = len(concluded)

    @property
    def items(self) -> tuple[StoredItem, ...]:
        """The items that are complete, in order."""
        return tuple(item for item in self._items if item is not None)

    def begin(self, item: Mapping[str, object]) -> tuple[int, Event]:
        """Announce an item; its index."""
        index = len(self._items)
        self._items.append(None)
        fields = b'"output_index":%d,"item":%b' % (index, encode(item))
        return index, self.writer.event("response.output_item.added", fields)

    def end(self, index: int, item: Mapping[str, object]) -> list[Event]:
        """The item is complete: conclude it, and those after it that waited for it."""
        self._items[index] = StoredItem(str(item["id"]), Raw(encode(item)))
        events: list[Event] = []
        while self._concluded < len(self._items) and (done := self._items[self._concluded]) is not None:
            fields = b'"output_index":%d,"item":%b' % (self._concluded, done.raw)
            events.append(self.writer.event("response.output_item.done", fields))
            self._concluded += 1
        return events


class Open:
    """An item that has begun. `head` are its fields besides `status`, in the order in which they are shown."""

    def __init__(self, output: Output, item_id: str, kind: str) -> None:
        self.id = item_id
        self.index = -1
        self._output = output
        self._head: dict[str, object] = {"id": item_id, "type": kind}

    def _begin(self, **fields: object) -> Event:
        self.index, event = self._output.begin({**self._head, **fields})
        return event

    def _end(self, **fields: object) -> list[Event]:
        return self._output.end(self.index, {**self._head, **fields})

    def _place(self, **more: object) -> bytes:
        return members(item_id=self.id, output_index=self.index, **more)

    def _event(self, kind: str) -> Event:
        return self._output.writer.event(kind, self._place())


class _Part:
    """A content part being written."""

    def __init__(self, writer: EventWriter, kind: PartKind, place: bytes) -> None:
        self.kind = kind
        self.streamed = Streamed(writer, kind.words, place, kind.tail)
        self._writer = writer
        self._place = place
        self._logprobs: list[bytes] = []

    def begin(self) -> Event:
        part = encode({"type": self.kind.type, self.kind.field: "", **self.kind.extra})
        return self._writer.event("response.content_part.added", b'%b,"part":%b' % (self._place, part))

    def add(self, text: str, logprobs: Raw) -> Event:
        """Say more, with logprobs (a JSON array)."""
        array = encode(logprobs)
        if inside := array.strip()[1:-1].strip():
            self._logprobs.append(inside)
        return self.streamed.add(text, b',"logprobs":' + array)

    def end(self, whole: str | None, sources: Mapping[str, str]) -> tuple[list[Event], Raw]:
        """Conclude it; its JSON. Where it names one of the `sources` (titles by URL), an annotation says so."""
        extra = dict(self.kind.extra)
        tail = None
        events = self._rest(whole)
        if self.kind is TEXT and sources:
            extra["annotations"] = found = citations(self.streamed.text, sources)
            for index, annotation in enumerate(found):
                fields = b'%b,"annotation_index":%d,"annotation":%b' % (self._place, index, encode(annotation))
                events.append(self._writer.event("response.output_text.annotation.added", fields))
        if self._logprobs:
            extra["logprobs"] = Raw(b"[%b]" % b",".join(self._logprobs))
            tail = b',"logprobs":%b' % extra["logprobs"]
        events += self.streamed.finish(whole, tail)
        part = Raw(encode({"type": self.kind.type, self.kind.field: self.streamed.text, **extra}))
        events.append(self._writer.event("response.content_part.done", b'%b,"part":%b' % (self._place, part)))
        return events, part

    def _rest(self, whole: str | None) -> list[Event]:
        """What the whole has beyond what was said, said now: annotations are about all of it."""
        said = self.streamed.text
        if whole is None or len(whole) <= len(said) or not whole.startswith(said):
            return []
        return [self.streamed.add(whole[len(said) :])]


class _Parts(Open):
    """An item whose content is parts, written one after the other."""

    def __init__(self, output: Output, item_id: str, kind: str) -> None:
        super().__init__(output, item_id, kind)
        self.sources: Mapping[str, str] = NO_SOURCES
        self._closed: list[Raw] = []
        self._part: _Part | None = None

    def say(self, kind: PartKind, text: str, logprobs: Raw | None = None) -> list[Event]:
        """More text, of the part being written or of a new one."""
        part = self._part
        if part is not None and part.kind is kind:
            if logprobs is not None:
                return [part.add(text, logprobs)]
            return [part.streamed.add(text)] if text else []
        events = self._close_part(None)
        self._part = _Part(self._output.writer, kind, self._place(content_index=len(self._closed)))
        events.append(self._part.begin())
        return events + self.say(kind, text, logprobs)

    def _close_part(self, whole: str | None) -> list[Event]:
        if self._part is None:
            return []
        events, part = self._part.end(whole, self.sources)
        self._closed.append(part)
        self._part = None
        return events

    def _reconcile(self, position: int, kind: PartKind, whole: str) -> list[Event]:
        """Say what part `position` of the finished item has beyond what was said of it."""
        if position < len(self._closed):
            return []
        if self._part is not None:
            return self._close_part(whole if self._part.kind is kind else None)
        return self.say(kind, "") + self._close_part(whole)


class OpenMessage(_Parts):
    """A message of the model's."""

    def __init__(self, output: Output, item_id: str) -> None:
        super().__init__(output, item_id, "message")

    def begin(self) -> list[Event]:
        """Announce it."""
        return [self._begin(status="in_progress", role="assistant", content=[])]

    def end(self, message: Message) -> list[Event]:
        """It is complete, and this is all of it."""
        events: list[Event] = []
        for position, part in enumerate(message.content):
            if isinstance(part, Text):
                events += self._reconcile(position, TEXT, part.text)
            elif isinstance(part, Refusal):
                events += self._reconcile(position, REFUSAL, part.text)
            elif position >= len(self._closed):
                events += self._close_part(None)
                events += self._whole_part(part_to_wire(part))
        phase = {} if message.phase is None else {"phase": message.phase}
        return events + self.close("completed", phase)

    def close(self, status: Ending, more: Mapping[str, object] | None = None) -> list[Event]:
        """It ends with what was said."""
        events = self._close_part(None)
        return events + self._end(status=status, role="assistant", content=self._closed, **(more or {}))

    def _whole_part(self, part: Raw) -> list[Event]:
        fields = b'%b,"part":%b' % (self._place(content_index=len(self._closed)), encode(part))
        self._closed.append(part)
        kinds = ("response.content_part.added", "response.content_part.done")
        return [self._output.writer.event(kind, fields) for kind in kinds]


class OpenReasoning(_Parts):
    """What the model thinks."""

    def __init__(self, output: Output, item_id: str, kind: PartKind) -> None:
        super().__init__(output, item_id, "reasoning")
        self._kind = kind
        self._summary: list[Mapping[str, object]] = []

    def begin(self) -> list[Event]:
        """Announce it."""
        return [self._begin(status="in_progress", summary=[])]

    def think(self, text: str) -> list[Event]:
        """More of it."""
        return self.say(self._kind, text)

    def end(self, reasoning: Reasoning, seal: Seal | None = None) -> list[Event]:
        """It is complete, and this is all of it. With `seal` the client gets it sealed, too, unless the engine did."""
        events = self._reconcile(0, self._kind, reasoning.text) if reasoning.text else []
        events += self._close_part(None)
        for text in reasoning.summary:
            events += self._summarize(text)
        encrypted = reasoning.encrypted
        if encrypted is None and seal is not None and reasoning.text:
            encrypted = seal(Sealed("reasoning", reasoning.text))
        return events + self.close("completed", encrypted)

    def close(self, status: Ending, encrypted: str | None = None) -> list[Event]:
        """It ends with what was said."""
        events = self._close_part(None)
        fields: dict[str, object] = {"status": status, "summary": self._summary}
        if self._closed:
            fields["content"] = self._closed
        if encrypted is not None:
            fields["encrypted_content"] = encrypted
        return events + self._end(**fields)

    def _summarize(self, text: str) -> list[Event]:
        writer = self._output.writer
        place = self._place(summary_index=len(self._summary))
        empty, part = ({"type": "summary_text", "text": each} for each in ("", text))
        self._summary.append(part)
        added = writer.event("response.reasoning_summary_part.added", b'%b,"part":%b' % (place, encode(empty)))
        said = Streamed(writer, _SUMMARY, place).finish(text)
        done = writer.event("response.reasoning_summary_part.done", b'%b,"part":%b' % (place, encode(part)))
        return [added, *said, done]
