"""Is a stream of the Responses API legal? Pure: feed it events, or the bytes of server-sent events.

The rules: what comes in which order (in the response and in every item), that numbers, ids and indices agree, that the
pieces of a text make up the whole, that items are concluded in order and look as they were told, that the last event
repeats all of them, and that errors end what they must end. Two contracts are known, `openai` and `openresponses`;
without a profile, the stream's own words decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from app.dialects.openai_responses.check_items import ItemCheck, Json, as_object, missing
from app.dialects.openai_responses.check_tables import ASKING, EVENTS, FOREIGN, LIFECYCLE, RESPONSE_KEYS, TERMINAL

# Most violations follow from the first few.
MOST = 100


class StreamCheck:
    """Follows one stream. `violations` are sentences, each beginning with the position of the event it is about."""

    def __init__(self, profile: str = "openai") -> None:
        self.violations: list[str] = []
        self._profile = profile
        self._position = -1
        self._phase = ""
        self._response_id: object = None
        self._items: list[ItemCheck] = []
        self._concluded: list[Json] = []
        self._at_once: ItemCheck | None = None
        self._cut = False
        self._erred = False

    def feed(self, event: Json) -> None:
        """The next event."""
        self._position += 1
        kind = str(event.get("type"))
        for fault in self._faults(kind, event):
            if len(self.violations) < MOST:
                self.violations.append(f"#{self._position} {kind}: {fault}")

    def finish(self, *, cancelled: bool = False) -> None:
        """There are no more events. A response that was cancelled has no last one."""
        if cancelled and self._phase == "over":
            self.violations.append("a cancelled response has no event that says it ended")
        elif not cancelled and self._phase != "over" and not (self._erred and self._profile == "openai"):
            missed = "response.failed after the error" if self._erred else "an event that says how the response ended"
            self.violations.append(f"the stream ends without {missed}")

    # ── every event ───────────────────────────────────────────────────────────

    def _faults(self, kind: str, event: Json) -> Iterator[str]:
        fields = EVENTS.get(kind)
        if event.get("sequence_number") != self._position or isinstance(event.get("sequence_number"), bool):
            yield f"sequence_number is {event.get('sequence_number')} instead of {self._position}"
        if fields is None:
            yield "there is no such event"
            return
        if kind in FOREIGN[self._profile]:
            yield f"the profile {self._profile} does not have this event"
        faults = list(missing(fields, event))
        yield from faults
        if self._phase == "over":
            yield "it comes after the end"
        elif not faults and kind != "keepalive":
            yield from self._in_order(kind, event)

    def _in_order(self, kind: str, event: Json) -> Iterator[str]:
        at_once, self._at_once = self._at_once, None
        if at_once is not None and not (kind == "response.output_item.done" and event["item"].get("id") == at_once.id):
            yield f"{at_once.type} has to be done right after it was added"
        if self._erred and kind != "response.failed":
            yield "only response.failed may follow an error"
        if kind == "error":
            yield from self._error(event)
        elif kind in LIFECYCLE:
            yield from self._lifecycle(kind, event["response"])
        else:
            if self._phase != "response.in_progress":
                yield "it comes before response.in_progress"
            yield from self._item_event(kind, event)

    def _error(self, event: Json) -> Iterator[str]:
        self._erred = True
        nested = as_object(event.get("error"))
        if self._profile == "openai":
            yield from missing({"message": str}, event)
        else:
            yield from (f"error.{fault}" for fault in missing({"type": str, "message": str}, nested))
        if nested and "message" in event:
            for name in ("code", "message", "param"):
                if event.get(name) != nested.get(name):
                    yield f"error.{name} is not what the event says"

    # ── the response ──────────────────────────────────────────────────────────

    def _lifecycle(self, kind: str, response: Json) -> Iterator[str]:
        yield from self._order_of_lifecycle(kind)
        keys = [key for key in RESPONSE_KEYS[self._profile] if key not in response]
        if keys:
            yield "response lacks " + ", ".join(keys)
        if response.get("object") != "response":
            yield "response.object is not response"
        status = response.get("status")
        if status not in (("queued", "in_progress") if kind == "response.created" else (LIFECYCLE[kind],)):
            yield f"response.status is {status}"
        if self._response_id is None:
            self._response_id = response.get("id")
        if response.get("id") != self._response_id:
            yield "response.id has changed"
        yield from self._verbosity(response)
        yield from self._end(kind, response) if kind in TERMINAL else self._begin(response)
        self._phase = "over" if kind in TERMINAL else kind

    def _order_of_lifecycle(self, kind: str) -> Iterator[str]:
        before = {
            "response.created": {""},
            "response.queued": {"response.created"},
            "response.in_progress": {"response.created", "response.queued"},
            # What breaks early breaks before it was in progress.
            "response.failed": {"response.created", "response.queued", "response.in_progress"},
        }.get(kind, {"response.in_progress"})
        if self._phase not in before and not (kind == "response.failed" and self._erred):
            yield f"it comes after {self._phase or 'nothing'}"

    def _verbosity(self, response: Json) -> Iterator[str]:
        text = as_object(response.get("text"))
        if self._profile == "openresponses" and text.get("verbosity", "") is None:
            yield "response.text.verbosity is null"

    def _begin(self, response: Json) -> Iterator[str]:
        if response.get("output") != []:
            yield "response.output is not empty"
        if response.get("usage") is not None:
            yield "response.usage is not null"

    def _end(self, kind: str, response: Json) -> Iterator[str]:
        left = [str(item.id) for item in self._items if not item.concluded]
        if left:
            yield "these items are not done: " + ", ".join(left)
        elif response.get("output") != self._concluded:
            yield "response.output is not the items that were done"
        undone = [item for item in self._concluded if item.get("status") == "incomplete"]
        if undone and kind == "response.completed" and self._profile == "openresponses":
            yield f"{undone[0].get('id')} is incomplete, and so must be the response"
        asks = any(str(item.get("type")) in ASKING for item in self._concluded)
        if asks and kind == "response.incomplete":
            yield "a response that asks somebody something completes"
        yield from _details(kind, response)
        yield from _usage(kind, response.get("usage"))

    # ── items ─────────────────────────────────────────────────────────────────

    def _item_event(self, kind: str, event: Json) -> Iterator[str]:
        index: int = event["output_index"]
        if kind == "response.output_item.added":
            yield from self._added(index, event["item"])
            return
        if not 0 <= index < len(self._items):
            yield f"no item has output_index {index}"
            return
        item = self._items[index]
        if kind == "response.output_item.done":
            yield from self._done(index, item, event["item"])
            return
        if event.get("item_id", item.id) != item.id:
            yield f"item_id is not {item.id}, the item at output_index {index}"
        yield from item.hear(event)

    def _added(self, index: int, item: Json) -> Iterator[str]:
        if index != len(self._items):
            yield f"output_index is {index} instead of {len(self._items)}"
        if any(item.get("id") == other.id for other in self._items):
            yield "item.id is the id of another item"
        if self._cut and self._profile == "openresponses":
            yield "an item ended incomplete, so it must be the last"
        new = ItemCheck(item)
        self._items.append(new)
        self._at_once = new if new.kind.at_once else None
        yield from new.begin(item)

    def _done(self, index: int, open_item: ItemCheck, item: Json) -> Iterator[str]:
        again = open_item.concluded
        yield from open_item.end(item)
        if again:
            return
        if any(not each.concluded for each in self._items[:index]):
            yield "an item before it is not done yet"
        self._concluded.append(item)
        self._cut = self._cut or item.get("status") == "incomplete"


def _details(kind: str, response: Json) -> Iterator[str]:
    """An end says why, and only what belongs to it."""
    for owner, field, inner in (
        ("response.failed", "error", {"code": str, "message": str}),
        ("response.incomplete", "incomplete_details", {"reason": str}),
    ):
        found = response.get(field)
        if kind == owner:
            yield from (f"response.{field}.{fault}" for fault in missing(inner, as_object(found)))
        elif found is not None:
            yield f"response.{field} is not null"
    if kind == "response.completed" and not isinstance(response.get("completed_at", 0), int | float):
        yield "response.completed_at is not a time"


def _usage(kind: str, usage: object) -> Iterator[str]:
    if usage is None and kind == "response.failed":
        return
    counts = as_object(usage)
    faults = list(missing({"input_tokens": int, "output_tokens": int, "total_tokens": int}, counts))
    yield from (f"response.usage.{fault}" for fault in faults)
    if not faults and counts["input_tokens"] + counts["output_tokens"] != counts["total_tokens"]:
        yield "response.usage.total_tokens is not the sum"


# ── entrances ─────────────────────────────────────────────────────────────────


def check_events(events: Iterable[Json], profile: str | None = None, *, cancelled: bool = False) -> list[str]:
    """What is wrong with the events of one response; empty when nothing is."""
    every = list(events)
    check = StreamCheck(profile or _profile_of(every))
    for event in every:
        check.feed(event)
    check.finish(cancelled=cancelled)
    return check.violations


def check_sse(data: bytes, profile: str | None = None, *, cancelled: bool = False) -> list[str]:
    """What is wrong with a whole response as server-sent events; empty when nothing is. Comments are ignored."""
    violations: list[str] = []
    events: list[Json] = []
    done = False
    try:
        blocks = data.decode().replace("\r\n", "\n").split("\n\n")
    except UnicodeDecodeError:
        return ["the stream is not UTF-8"]
    if blocks.pop().strip():
        violations.append("the stream ends in the middle of an event")
    for number, block in enumerate(blocks):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        if done:
            violations.append(f"frame {number} comes after [DONE]")
        if lines == ["data: [DONE]"]:
            done = True
            continue
        event, faults = _frame(lines)
        violations += [f"frame {number}: {fault}" for fault in faults]
        events += [] if event is None else [event]
    violations += check_events(events, profile, cancelled=cancelled)
    if done is cancelled:
        violations.append("[DONE] closes a stream that did not end" if cancelled else "the stream ends without [DONE]")
    return violations


def _frame(lines: Sequence[str]) -> tuple[Json | None, list[str]]:
    """The event of a frame, and what is wrong with the frame."""
    faults: list[str] = []
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    faults += [f"it has a field {name}" for name in fields if name not in {"event", "data"}]
    try:
        event = msgspec.json.decode("\n".join(fields.get("data", [])), type=dict[str, Any])
    except msgspec.DecodeError as error:
        return None, [*faults, f"its data is no JSON object: {error}"]
    if fields.get("event") != [event.get("type")]:
        faults.append(f"its event is {fields.get('event')}, its type {event.get('type')}")
    return event, faults


def _profile_of(events: Sequence[Json]) -> str:
    openresponses = any(str(event.get("type")) in FOREIGN["openai"] for event in events)
    return "openresponses" if openresponses else "openai"
