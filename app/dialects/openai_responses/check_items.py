"""Is what a stream says of one item legal? One `ItemCheck` follows one item from its announcement to its conclusion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, cast

from app.dialects.openai_responses.check_tables import (
    KINDS,
    MCP_ERRORS,
    PARTS,
    TRACK_EVENTS,
    Fields,
    Kind,
    PartKind,
    Pieces,
    Track,
)

Json: TypeAlias = Mapping[str, Any]

_UNKNOWN = Kind()
_COMMAND = "response.shell_call_command."
_SHELL_OUTPUT = "response.shell_call_output_content."
_IMAGE = "response.image_generation_call.partial_image"


def missing(fields: Fields, found: Json) -> Iterator[str]:
    """Fields that are not there, or not of their type."""
    for name, kind in fields.items():
        value = found.get(name)
        if name not in found or not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            yield f"{name} is {'missing' if name not in found else f'no {kind.__name__}'}"


def as_object(value: object) -> Json:
    """The value if it is a JSON object, else an empty one."""
    return cast("Json", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """The value if it is a JSON array, else an empty one."""
    return cast("list[object]", value) if isinstance(value, list) else []


class Said:
    """A text so far, and whether it is complete."""

    def __init__(self, begun: object) -> None:
        self.text = begun if isinstance(begun, str) else ""
        self.complete = False

    def hear(self, pieces: Pieces, event: Json) -> Iterator[str]:
        """A piece, or the whole."""
        if event["type"] == pieces.delta:
            self.text += event["delta"]
            return
        self.complete = True
        if event[pieces.field] != self.text:
            yield f"{pieces.field} is not what its deltas said"
            self.text = event[pieces.field]


class PartCheck:
    """One part of a message or of reasoning."""

    def __init__(self, part: Json) -> None:
        self.type = part.get("type")
        self._kind = PARTS.get(str(self.type), PartKind(()))
        self._said = Said(part.get(self._kind.texts[0].field) if self._kind.texts else None)
        self._annotations: list[object] = [*as_list(part.get("annotations"))]

    def hear(self, event: Json) -> Iterator[str]:
        """An event about the part."""
        kind = event["type"]
        if self._said.complete:
            yield "the text of the part is complete already"
        elif kind in self._kind.among:
            if event["annotation_index"] != len(self._annotations):
                yield f"annotation_index is not {len(self._annotations)}"
            self._annotations.append(event["annotation"])
        else:
            pieces = next((each for each in self._kind.texts if kind in {each.delta, each.done}), None)
            if pieces is None:
                yield f"it is about another kind of part than {self.type}"
            else:
                yield from self._said.hear(pieces, event)

    def end(self, part: Json) -> Iterator[str]:
        """The part is concluded, and looks like this."""
        if part.get("type") != self.type:
            yield f"the part began as {self.type}"
        if not self._kind.texts:
            return
        field = self._kind.texts[0].field
        if not self._said.complete:
            yield "the text of the part is not complete"
        if part.get(field) != self._said.text:
            yield f"part.{field} is not what was said"
        if self.type == "output_text" and part.get("annotations") != self._annotations:
            yield "part.annotations are not those that were added"


class TrackCheck:
    """A list of parts, written one after the other."""

    def __init__(self, track: Track) -> None:
        self.track = track
        self.parts: list[Json] = []
        self._open: PartCheck | None = None

    def hear(self, event: Json, step: str) -> Iterator[str]:
        """An event about one of the parts; `step` is "added", "done" or empty."""
        index = event[self.track.index]
        if index != len(self.parts):
            yield f"{self.track.index} is not {len(self.parts)}"
        elif step == "added":
            yield from self._begin(event["part"])
        elif self._open is None:
            yield "no part is open"
        elif step == "done":
            yield from self._open.end(event["part"])
            self.parts.append(event["part"])
            self._open = None
        else:
            yield from self._open.hear(event)

    def _begin(self, part: Json) -> Iterator[str]:
        if self._open is not None:
            yield "another part is open"
        kind = str(part.get("type"))
        if kind in PARTS and kind not in self.track.parts:
            yield f"a part of type {kind} does not belong there"
        self._open = PartCheck(part)

    def end(self, item: Json) -> Iterator[str]:
        """The item is concluded, and looks like this."""
        if self._open is not None:
            yield f"a part of its {self.track.field} is still open"
        if (item.get(self.track.field) or []) != self.parts:
            yield f"item.{self.track.field} is not what was said"


class ItemCheck:
    """One item."""

    def __init__(self, item: Json) -> None:
        self.id = item.get("id")
        self.type = str(item.get("type"))
        self.kind = KINDS.get(self.type, _UNKNOWN)
        self.concluded = False
        self._state = ""
        self._said = Said(item.get(self.kind.text.field) if self.kind.text else None)
        self._tracks = {track.index: TrackCheck(track) for track in self.kind.tracks}
        self._commands: list[Said] = []
        self._printed: dict[int, dict[str, str]] = {}
        self._outputs: list[object] = []
        self._images = 0

    def begin(self, item: Json) -> Iterator[str]:
        """The item is announced like this."""
        if self.type not in KINDS and ":" not in self.type:
            yield f"there is no kind of item called {self.type}"
        yield from (f"item.{fault}" for fault in missing({"id": str, "type": str, **self.kind.fields}, item))
        status = item.get("status")
        if self.kind.states and status not in (None, "in_progress"):
            yield f"item.status is {status} at the beginning"
        if self.type == "message" and item.get("role") != "assistant":
            yield "item.role is not assistant"

    def hear(self, event: Json) -> Iterator[str]:
        """An event about the item."""
        kind = str(event["type"])
        if self.concluded:
            yield "the item is done already"
            return
        index, step = TRACK_EVENTS.get(kind, (_index_of(event), ""))
        if index in self._tracks:
            yield from self._tracks[index].hear(event, step)
        elif kind in self.kind.steps.get(self._state, {}):
            self._state = self.kind.steps[self._state][kind]
            yield from self._content(kind, event)
        else:
            yield f"it may not come here in an item of type {self.type}"

    def _content(self, kind: str, event: Json) -> Iterator[str]:
        text = self.kind.text
        if text is not None and kind in {text.delta, text.done}:
            yield from self._said.hear(text, event)
        elif kind.startswith(_COMMAND):
            yield from self._command(kind.removeprefix(_COMMAND), event)
        elif kind.startswith(_SHELL_OUTPUT):
            yield from self._printing(kind.removeprefix(_SHELL_OUTPUT), event)
        elif kind == _IMAGE:
            if event["partial_image_index"] != self._images:
                yield f"partial_image_index is not {self._images}"
            self._images += 1

    def _printing(self, step: str, event: Json) -> Iterator[str]:
        index: int = event["command_index"]
        if step == "delta":
            printed = self._printed.setdefault(index, {"stdout": "", "stderr": ""})
            for stream in printed:
                printed[stream] += str(event["delta"].get(stream) or "")
            return
        self._outputs += as_list(event["output"])
        for stream, said in self._printed.pop(index, {"stdout": "", "stderr": ""}).items():
            if "".join(str(as_object(each).get(stream, "")) for each in as_list(event["output"])) != said:
                yield f"{stream} is not what its deltas said"

    def _command(self, step: str, event: Json) -> Iterator[str]:
        index: int = event["command_index"]
        writing = bool(self._commands) and not self._commands[-1].complete
        if index != len(self._commands) - (step != "added") or writing is (step == "added"):
            yield f"command_index {index} is not the one that is next"
        elif step == "added":
            self._commands.append(Said(event["command"]))
        else:
            pieces = Pieces(f"{_COMMAND}delta", f"{_COMMAND}done", "command")
            yield from self._commands[index].hear(pieces, event)

    def end(self, item: Json) -> Iterator[str]:
        """The item is concluded, and looks like this."""
        if self.concluded:
            yield "the item is done already"
            return
        self.concluded = True
        if (item.get("id"), item.get("type")) != (self.id, self.type):
            yield f"item is not the one that was added: {self.type} {self.id}"
            return
        yield from (f"item.{fault}" for fault in missing({**self.kind.fields, **self.kind.late}, item))
        yield from self._ending(item.get("status"))
        for track in self._tracks.values():
            yield from track.end(item)
        text = self.kind.text
        if text is not None and self._said.complete and item.get(text.field) != self._said.text:
            yield f"item.{text.field} is not what was said"
        if self._commands and _commands(item) != [each.text for each in self._commands]:
            yield "item.action.commands are not what was said"
        if any(each not in as_list(item.get("output")) for each in self._outputs):
            yield "item.output is not what was said"
        if self._printed or not all(each.complete for each in self._commands):
            yield f"an event of its {self.type} is missing before it"
        if self.type == "mcp_call":
            yield from _mcp_error(item)
        if item.get("phase", "") is None:
            yield "item.phase is null; it has to be left out"

    def _ending(self, status: object) -> Iterator[str]:
        states = self.kind.states
        state = "completed" if status is None else str(status)
        if states and state not in states:
            yield f"item.status {state} is not one it may end in"
        allowed = self.kind.ends.get(self._state)
        if allowed is None:
            yield f"an event of its {self.type} is missing before it"
        elif allowed and state not in allowed:
            yield f"item.status {state} does not fit its events"


def _index_of(event: Json) -> str:
    return next((name for name in ("content_index", "summary_index") if name in event), "")


def _commands(item: Json) -> object:
    return as_object(item.get("action")).get("commands")


def _mcp_error(item: Json) -> Iterator[str]:
    error = item.get("error")
    if error is None:
        return
    if item.get("status") == "completed":
        yield "item.error is set although it completed"
    reason = as_object(error)
    known = MCP_ERRORS.get(str(reason.get("type")))
    if known is None:
        yield "item.error is none of " + ", ".join(MCP_ERRORS)
    else:
        yield from (f"item.error.{fault}" for fault in missing(known, reason))
