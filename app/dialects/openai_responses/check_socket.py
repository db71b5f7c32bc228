"""Is what a server says on a WebSocket of the Responses API legal? Pure: feed it the frames.

The rules: on each lane one response after the other, each a legal stream; errors in their envelope; and of steering,
that what was taken is either brought into the response that goes on from the one it was said to, on the same lane, or
given back once that one has ended, and is neither twice. Where a response waits for its client, that is said once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from app.dialects.openai_responses.check import MOST, check_events
from app.dialects.openai_responses.check_items import Json, as_object, missing
from app.dialects.openai_responses.check_tables import TERMINAL

STEERING = "response.steer."
_ENVELOPE = {"status": int, "error": dict}
_ENDS = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}


class _Lane:
    """What is being told on a lane. `erred`: an error came that may have ended it."""

    def __init__(self) -> None:
        self.events: list[Json] = []
        self.erred = False


class _Taken:
    """Something that was said to the response `target` and taken."""

    def __init__(self, target: str, lane: object) -> None:
        self.target = target
        self.lane = lane
        self.waits = False


class SocketCheck:
    """Follows one connection. `violations` are sentences, each beginning with the position of the frame it is about."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._position = -1
        self._lanes: dict[object, _Lane] = {}
        # The responses there were: their lane, and how they ended.
        self._ends: dict[str, tuple[object, str | None]] = {}
        self._taken: dict[object, _Taken] = {}
        self._settled: set[object] = set()

    def feed(self, frame: Json) -> None:
        """The next frame."""
        self._position += 1
        kind = str(frame.get("type"))
        for fault in self._faults(kind, frame):
            if len(self.violations) < MOST:
                self.violations.append(f"#{self._position} {kind}: {fault}")

    def finish(self, *, closed: bool = False) -> None:
        """No more frames come. `closed`: the connection ended before everything was said."""
        if closed:
            return
        for lane in self._lanes.values():
            if lane.events and not lane.erred:
                self.violations.append("a response has no end")
        for steer_id, taken in self._taken.items():
            if not taken.waits:
                self.violations.append(f"{steer_id} was taken, and neither said nor given back")

    def _faults(self, kind: str, frame: Json) -> Iterator[str]:
        if kind.startswith(STEERING):
            yield from self._steering(kind.removeprefix(STEERING), frame)
        elif kind == "error" and "sequence_number" not in frame:
            yield from missing(_ENVELOPE, frame)
            yield from (f"error.{fault}" for fault in missing({"type": str, "message": str}, as_object(frame["error"])))
            self._lane(frame).erred = True
        else:
            yield from self._event(kind, frame)

    def _lane(self, frame: Json) -> _Lane:
        return self._lanes.setdefault(frame.get("stream_id"), _Lane())

    # ── responses ─────────────────────────────────────────────────────────────

    def _event(self, kind: str, frame: Json) -> Iterator[str]:
        lane = self._lane(frame)
        if kind == "response.created":
            if lane.events and not lane.erred:
                yield "the response before it on its lane has no end"
            lane.events, lane.erred = [], False
            yield from self._begun(frame)
        elif not lane.events:
            yield "it belongs to no response"
            return
        lane.events.append({name: value for name, value in frame.items() if name not in {"stream_id", "obfuscation"}})
        if kind in TERMINAL:
            yield from check_events(lane.events)
            lane.events = []
            yield from self._ended(kind, as_object(frame.get("response")))

    def _begun(self, frame: Json) -> Iterator[str]:
        response = as_object(frame.get("response"))
        self._ends[str(response.get("id"))] = (frame.get("stream_id"), None)
        previous = response.get("previous_response_id")
        for steer_id, taken in list(self._taken.items()):
            if taken.target == previous and taken.lane == frame.get("stream_id"):
                if self._ends[taken.target][1] is None:
                    yield f"what was said to {previous} is said before that one has ended"
                self._settle(steer_id)

    def _ended(self, kind: str, response: Json) -> Iterator[str]:
        name = str(response.get("id"))
        lane, _ = self._ends[name]
        self._ends[name] = (lane, _ENDS[kind])
        steered = as_object(response.get("incomplete_details")).get("reason") == "steered"
        if steered and not any(taken.target == name for taken in self._taken.values()):
            yield "it was steered, and nothing was taken"

    # ── steering ──────────────────────────────────────────────────────────────

    def _steering(self, kind: str, frame: Json) -> Iterator[str]:
        told = as_object(frame.get("steer"))
        yield from missing({"sequence_number": int, "steer": dict}, frame)
        yield from (f"steer.{fault}" for fault in missing({"previous_response_id": str}, told))
        target = str(told.get("previous_response_id"))
        lane, end = self._ends.get(target, (None, None))
        if target in self._ends and frame.get("stream_id") != lane:
            yield f"{target} is on another lane"
        if kind == "accepted":
            yield from self._accepted(told, target, lane, ended=end is not None)
        elif kind == "pending":
            yield from missing({"reason": str, "required_input": list}, frame)
            yield from self._pending(told.get("id"), end)
        elif kind == "failed":
            yield from (f"error.{fault}" for fault in missing(_ERROR, as_object(frame.get("error"))))
            yield from () if "input" in told else ("steer.input is missing",)
            yield from self._given_back(told, end)
        else:
            yield "there is no such event"

    def _accepted(self, told: Json, target: str, lane: object, *, ended: bool) -> Iterator[str]:
        steer_id = told.get("id")
        if not isinstance(steer_id, str) or steer_id in self._taken or steer_id in self._settled:
            yield "steer.id is no new id"
        if target not in self._ends or ended:
            yield f"{target} is not being made"
        self._taken[steer_id] = _Taken(target, lane)

    def _pending(self, steer_id: object, end: str | None) -> Iterator[str]:
        taken = self._taken.get(steer_id)
        if taken is None or taken.waits:
            yield f"{steer_id} {'was not taken' if taken is None else 'is said to wait twice'}"
            return
        taken.waits = True
        if end not in {"completed", "incomplete"}:
            yield f"{taken.target} has not ended"

    def _given_back(self, told: Json, end: str | None) -> Iterator[str]:
        steer_id = told.get("id")
        if steer_id is None:
            return
        if steer_id not in self._taken:
            yield f"{steer_id} {'is said and given back' if steer_id in self._settled else 'was not taken'}"
        elif end is None and self._lanes[self._taken[steer_id].lane].events and not self._erred(steer_id):
            yield f"{self._taken[steer_id].target} has not ended"
        self._settle(steer_id)

    def _erred(self, steer_id: object) -> bool:
        return self._lanes[self._taken[steer_id].lane].erred

    def _settle(self, steer_id: object) -> None:
        self._taken.pop(steer_id, None)
        self._settled.add(steer_id)


_ERROR = {"type": str, "code": str, "message": str}


def check_socket(frames: Iterable[Json], *, closed: bool = False) -> list[str]:
    """What is wrong with the frames of one connection; empty when nothing is."""
    check = SocketCheck()
    for frame in frames:
        check.feed(frame)
    check.finish(closed=closed)
    return check.violations
