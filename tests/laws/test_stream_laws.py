"""The laws of streams: whatever the loop does, what its client is told is legal, and adds up to what is stored.

The histories are those of `test_machine_laws`; every event the machine emits is encoded under both contracts. Legal is
what the checker says it is. That items can be put together from the stream alone is tried here by a client that knows
nothing but deltas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import event
from hypothesis import strategies as st

from app.dialects.openai_responses.check import check_events, check_sse
from app.dialects.openai_responses.context import to_items
from app.dialects.openai_responses.encode import DONE, Event, ResponseEncoder, frame
from app.dialects.openai_responses.wire import CreateResponse
from app.turn.events import Abort, CallTool, Emit, Finish, InEvent, OutEvent, Phase, TurnCut, TurnDone
from app.turn.ids import RandomIds
from app.turn.items import ToolCall
from tests.laws.test_machine_laws import ASKS, FAILURE, Turn, World, is_object
from tests.support.open_responses import ITEMS, faults

PROFILES = ("openai", "openresponses")
REQUEST = CreateResponse(model="m", input="go")
NOW = 1_700_000_001
# A server that stops leaves a turn that another one tells again.
BROKE_OFF = ("is incomplete, and so must be the response", "an item ended incomplete, so it must be the last")

Json = dict[str, Any]


class Client:
    """Puts items together from what comes in pieces, and looks at a concluded item only to compare."""

    def __init__(self) -> None:
        self.items: list[Json] = []
        self.concluded: list[Json] = []

    def hear(self, said: Json) -> None:
        kind: str = said["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert said["output_index"] == len(self.items)
            self.items.append(said["item"])
        elif kind == "output_item.done":
            assert said["output_index"] == len(self.concluded)
            self.concluded.append(said["item"])
            self._compare(self.items[said["output_index"]], said["item"])
        elif kind == "content_part.added":
            self.items[said["output_index"]].setdefault("content", []).append(said["part"])
        elif kind in {"output_text.delta", "reasoning_text.delta", "reasoning.delta"}:
            self._part(said)["text"] += said["delta"]
        elif kind == "refusal.delta":
            self._part(said)["refusal"] += said["delta"]
        elif kind in {"function_call_arguments.delta", "mcp_call_arguments.delta"}:
            self.items[said["output_index"]]["arguments"] += said["delta"]

    def _part(self, said: Json) -> Json:
        return self.items[said["output_index"]]["content"][said["content_index"]]

    def _compare(self, mine: Json, told: Json) -> None:
        assert {name: told.get(name) for name in ("id", "type")} == {name: mine[name] for name in ("id", "type")}
        for name in {"content", "arguments", "server_label", "name", "call_id"} & mine.keys():
            assert told[name] == mine[name]


class Streams(World):
    """A world that is told to two clients."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = {
            profile: ResponseEncoder(
                response_id="resp_1", created_at=NOW - 1, request=REQUEST, ids=RandomIds(), profile=profile
            )
            for profile in PROFILES
        }
        self.events: dict[str, list[Event]] = {profile: each.start() for profile, each in self.encoders.items()}
        self.unended: dict[str, str] = {}

    # A model that stops has ended its calls; otherwise it says what it likes, contradictions included.

    def _new_call(self, data: st.DataObject) -> tuple[str, str]:
        call_id, name = super()._new_call(data)
        self.unended[call_id] = name
        return call_id, name

    def _hear_call(self, call_id: str, name: str, text: str) -> None:
        self.unended.pop(call_id)
        super()._hear_call(call_id, name, text)

    def _end_turn(self, done: TurnDone) -> None:
        if done.reason in {"stop", "tool_calls"}:
            for call_id, name in list(self.unended.items()):
                self._hear_call(call_id, name, "{}")
        self.unended = {}
        super()._end_turn(done)

    def _feed(self, fed: InEvent) -> list[OutEvent]:
        out = super()._feed(fed)
        for one in out:
            for profile, encoder in self.encoders.items():
                if isinstance(one, Emit):
                    self.events[profile] += encoder.feed(one.event)
                elif isinstance(one, Finish):
                    self._conclude(profile, encoder, one)
        return out

    def _conclude(self, profile: str, encoder: ResponseEncoder, finish: Finish) -> None:
        self.events[profile] += encoder.close(finish)
        encoder.settle(finish, NOW)
        terminal = encoder.terminal()
        assert (terminal is None) is (finish.status == "cancelled")
        self.events[profile] += [] if terminal is None else [terminal]

    def teardown(self) -> None:
        if self.machine.phase not in {Phase.IDLE, Phase.DONE}:
            self._feed(Abort(FAILURE))
        if self.machine.finish is not None:
            for profile, encoder in self.encoders.items():
                self._laws_of_a_stream(profile, encoder, self.machine.finish)
        super().teardown()

    def _laws_of_a_stream(self, profile: str, encoder: ResponseEncoder, finish: Finish) -> None:
        told: list[Json] = [msgspec.json.decode(each.data) for each in self.events[profile]]
        cancelled = finish.status == "cancelled"
        assert self._excused(check_events(told, profile, cancelled=cancelled)) == []
        assert [(each.type, each.sequence_number) for each in self.events[profile]] == [
            (each["type"], number) for number, each in enumerate(told)
        ]
        sent = b"".join(frame(each) for each in self.events[profile]) + (b"" if cancelled else DONE)
        assert self._excused(check_sse(sent, profile, cancelled=cancelled)) == []
        client = Client()
        for each in told:
            client.hear(each)
        body = msgspec.json.decode(encoder.body())
        stored = [msgspec.json.decode(item.raw) for item in encoder.output()]
        assert client.concluded == stored == body["output"]
        assert [item["id"] for item in stored] == [item.id for item in encoder.output()]
        assert body["status"] == finish.status
        if profile == "openresponses":
            self._laws_of_the_contract(body)
        event(f"items: {min(len(stored) // 4 * 4, 12)}+")

    def _excused(self, violations: list[str]) -> list[str]:
        """Without what the open contract has no word for: an item that broke off in a response that went on."""
        broke_off = any(one == Emit(TurnCut()) for out in self.out for one in out)
        return [each for each in violations if not (broke_off and any(words in each for words in BROKE_OFF))]

    def _laws_of_the_contract(self, body: Json) -> None:
        """The response is what the contract says, apart from the items the contract has no word for."""
        output = [item for item in body["output"] if item["type"] in ITEMS]
        assert faults("ResponseResource", {**body, "output": output}) == []


class FaithfulStreams(Streams):
    """A world in which a call's deltas say what its end repeats: then the client sees what was executed."""

    def _hear_delta(self, call_id: str, name: str, text: str) -> None:
        super()._hear_delta(call_id, name, "")

    def _hear_call(self, call_id: str, name: str, text: str) -> None:
        middle = len(text) // 2
        for piece in (text[:middle], text[middle:]):
            super()._hear_delta(call_id, name, piece)
        super()._hear_call(call_id, name, text)

    def _laws_of_a_stream(self, profile: str, encoder: ResponseEncoder, finish: Finish) -> None:
        super()._laws_of_a_stream(profile, encoder, finish)
        executed = [one for out in self.out for one in out if isinstance(one, CallTool) and not one.again]
        calls = [item for item in to_items(encoder.output()) if isinstance(item, ToolCall) and item.server_label]
        shown = [(call.server_label, call.tool, call.arguments) for call in calls]
        for call in executed:
            asked = (call.server_label, call.tool, call.arguments)
            assert asked in shown
            shown.remove(asked)
        self._turns_share_a_stem(encoder)

    def _turns_share_a_stem(self, encoder: ResponseEncoder) -> None:
        """The calls of a turn can be told from those of another, or the context could not be put together again."""
        turns = [made for turn in self.turns if (made := [call for call in turn.ended if _is_shown(turn, call)])]
        stems: Mapping[str, int] = {}
        for item in encoder.output():
            if item.id.startswith("mcp_"):
                stem = "_".join(item.id.split("_")[:2])
                stems = {**stems, stem: stems.get(stem, 0) + 1}
        told = [*self.turns, *self.retold]
        if not any(set(turn.fates) - {call.call_id for call in turn.ended} - turn.dropped for turn in told):
            assert list(stems.values()) == [len(turn) for turn in turns]


def _is_shown(turn: Turn, call: ToolCall) -> bool:
    """Whether the call is an item of its own: one that waits for approval, or was refused, is not."""
    waits = call.tool == ASKS and call.approval_id is None and is_object(call)
    return call.server_label is not None and turn.fates.get(call.call_id) != "refused" and not waits


TestStreamLaws = Streams.TestCase
TestFaithfulStreamLaws = FaithfulStreams.TestCase
