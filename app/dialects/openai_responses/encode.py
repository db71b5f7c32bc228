"""The answering side of the Responses API: what the loop says, as events, items and the response object.

Two contracts are spoken. They agree on everything but the names of the reasoning events, so the profile is one choice
made at the start; whatever either requires is always there.

What the loop promises an encoder: deltas of an item, then its end; listings and calls are announced, then answered. An
item whose end never came is ended by `close`. Nothing a client was told is ever taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from app.dialects.openai_responses import snapshot
from app.dialects.openai_responses.client_calls import SHOWN
from app.dialects.openai_responses.eliciting import ASKS_USER, questions
from app.dialects.openai_responses.events import DONE, Event, EventWriter, frame
from app.dialects.openai_responses.items import PREFIXES
from app.dialects.openai_responses.keeping import done_items
from app.dialects.openai_responses.output_calls import OpenCall, OpenListing, OpenMcpCall, WholeCall
from app.dialects.openai_responses.output_hosted import (
    HOSTINGS,
    OpenHosted,
    approval_request,
    compaction,
    search_output,
)
from app.dialects.openai_responses.output_items import (
    REASONING,
    REFUSAL,
    TEXT,
    Ending,
    OpenMessage,
    OpenReasoning,
    Output,
)
from app.dialects.openai_responses.sealed import Seal
from app.dialects.openai_responses.snapshot import body_from
from app.dialects.openai_responses.wire import CreateResponse
from app.turn.errors import LocalProtocolError
from app.turn.events import (
    ApprovalOpened,
    CallDelta,
    CallTool,
    Compacted,
    Elicited,
    Finish,
    ItemDone,
    ListTools,
    LoopEvent,
    ReasoningDelta,
    RefusalDelta,
    Suspended,
    TextDelta,
    ToolReturned,
    ToolsFound,
    ToolsListed,
    TurnCut,
)
from app.turn.ids import IdSource, nth_of_turn
from app.turn.items import Message, Opaque, Reasoning, StoredItem, ToolCall

OpenItem: TypeAlias = OpenMessage | OpenReasoning | OpenCall | OpenMcpCall | OpenHosted | OpenListing

__all__ = ["DONE", "Event", "ResponseEncoder", "body_from", "frame"]

_fields = msgspec.json.Decoder(dict[str, Raw])
_string = msgspec.json.Decoder(str)


class ResponseEncoder:
    """One response as its client sees it. `created_at` is in seconds since the epoch. `seal` closes what only this
    server may read again; without it nothing is sealed, and no summary can be shown."""

    def __init__(
        self,
        *,
        response_id: str,
        created_at: int,
        request: CreateResponse,
        ids: IdSource,
        profile: str = "openai",
        seal: Seal | None = None,
    ) -> None:
        self.response_id = response_id
        self.created_at = created_at
        self._ids = ids
        self._echo = snapshot.echo(request)
        self._background = request.background is True
        self._progress = snapshot.Progress()
        self._writer = EventWriter()
        self._output = Output(self._writer)
        self._thinking = REASONING[profile]
        self._message: OpenMessage | None = None
        self._reasoning: OpenReasoning | None = None
        self._listings: dict[str, OpenListing] = {}
        self._calls: dict[str, OpenCall] = {}
        self._mcp_calls: dict[str, OpenMcpCall | OpenHosted] = {}
        self._asking: dict[str, str] = {}
        self._include = frozenset(request.include or ())
        self._seal = seal
        self._sources: dict[str, str] = {}
        self._stem = ""
        self._of_turn = 0

    # ── the response ──────────────────────────────────────────────────────────

    def create(self) -> list[Event]:
        """What there is to say before anything is done. In the background that may take a while."""
        if not self._background:
            return self._say("response.created")
        self._progress = snapshot.QUEUED
        return self._say("response.created", "response.queued")

    def begin(self) -> list[Event]:
        """Somebody has begun to make the response."""
        self._progress = snapshot.Progress()
        return self._say("response.in_progress")

    def start(self) -> list[Event]:
        """The first events of a response that is made at once."""
        return [*self.create(), *self.begin()]

    def adopt(self, told: Sequence[Event]) -> None:
        """Go on after these events, without knowing how they came about: their items stand, open ones are left so."""
        self._writer.go_on(len(told))
        self._message = self._reasoning = None
        self._listings, self._calls, self._mcp_calls = {}, {}, {}
        self._output = Output(self._writer, done_items(told))

    def cut(self, _event: TurnCut) -> list[Event]:
        """The model's turn broke off. What it said stands, and the response goes on.

        An incomplete item would have to be the last one, so what is closed here is complete, or failed. Only a call
        for the client stays incomplete: half of one must not look like one.
        """
        alone = (item for item in (self._message, self._reasoning) if item is not None)
        calls = (call for call in (*self._calls.values(), *self._mcp_calls.values()) if not call.said)
        still: list[OpenItem] = [*alone, *calls]
        self._message = self._reasoning = None
        self._calls = {call_id: call for call_id, call in self._calls.items() if call.said}
        self._mcp_calls = {call_id: call for call_id, call in self._mcp_calls.items() if call.said}
        events: list[Event] = []
        for item in sorted(still, key=lambda each: each.index):
            events += item.close(_CUT.get(type(item), "completed"))
        return events

    def _say(self, *kinds: str) -> list[Event]:
        fields = b'"response":' + self.body()
        return [self._writer.event(kind, fields) for kind in kinds]

    def close(self, finish: Finish) -> list[Event]:
        """End every item that is still open, in the order in which they began."""
        alone = (item for item in (self._message, self._reasoning) if item is not None)
        calls = (call for call in self._calls.values() if not call.said)
        still: list[OpenItem] = [*alone, *self._listings.values(), *calls, *self._mcp_calls.values()]
        self._message = self._reasoning = None
        self._listings, self._calls, self._mcp_calls = {}, {}, {}
        events: list[Event] = []
        for item in sorted(still, key=lambda each: each.index):
            events += item.close(_ending(item, finish))
        return events

    def settle(self, finish: Finish, now: int) -> None:
        """The response ended like this, at `now` (seconds since the epoch). The last one told counts."""
        self._progress = snapshot.Progress(finish, now)

    def terminal(self) -> Event | None:
        """The last event; a response that was cancelled has none."""
        finish = self._progress.finish
        if finish is None or finish.status == "cancelled":
            return None
        return self._writer.event(f"response.{finish.status}", b'"response":' + self.body())

    def unsay(self, count: int) -> None:
        """The last events were told to nobody, and never will be."""
        self._writer.skip(-count)

    def output(self) -> tuple[StoredItem, ...]:
        """The items that are complete, in order."""
        return self._output.items

    def snapshot(self) -> bytes:
        """The response as JSON, without its output."""
        return snapshot.take(self.response_id, self.created_at, self._progress, self._echo)

    def body(self) -> bytes:
        """The response as JSON, as far as it is."""
        return body_from(self.snapshot(), self._output.items)

    # ── what the loop says ────────────────────────────────────────────────────

    def feed(self, event: LoopEvent) -> list[Event]:
        """What the client is told about it. Raises `LocalProtocolError` for what the loop never announced."""
        return _RULES[type(event)](self, event)

    def text(self, event: TextDelta) -> list[Event]:
        if self._message is not None:
            return self._message.say(TEXT, event.text, event.logprobs)
        message, begun = self._writing()
        return begun + message.say(TEXT, event.text, event.logprobs)

    def refusal(self, event: RefusalDelta) -> list[Event]:
        message, begun = self._writing()
        return begun + message.say(REFUSAL, event.text)

    def reasoning(self, event: ReasoningDelta) -> list[Event]:
        reasoning, begun = self._pondering()
        return begun + reasoning.think(event.text)

    def call(self, event: CallDelta) -> list[Event]:
        call, begun = self._calling(_begun(event))
        return begun + call.add(event.arguments)

    def item_done(self, event: ItemDone) -> list[Event]:
        match event.item:
            case Message() as message:
                open_message, begun = self._writing()
                self._message = None
                open_message.sources = self._sources
                return begun + open_message.end(message)
            case Reasoning() as reasoning:
                open_reasoning, begun = self._pondering()
                self._reasoning = None
                wanted = "reasoning.encrypted_content" in self._include
                return begun + open_reasoning.end(reasoning, self._seal if wanted else None)
            case ToolCall() as call if call.kind in SHOWN:
                prefix = PREFIXES[SHOWN[call.kind].type]
                return WholeCall(self._output, self._ids.new(prefix), call).show()
            case ToolCall() as call:
                open_call, begun = self._calling(call)
                return begun + open_call.end(call.arguments)
            case Opaque() as opaque:
                return self._foreign(opaque)
            case item:
                raise LocalProtocolError(f"a model cannot say {type(item).__name__}")

    def asked(self, event: ListTools) -> list[Event]:
        listing = OpenListing(self._output, self._ids.new(PREFIXES["mcp_list_tools"]), event.server_label)
        self._listings[event.server_label] = listing
        return listing.begin()

    def listed(self, event: ToolsListed) -> list[Event]:
        listing = self._listings.pop(event.server_label, None)
        if listing is None:
            raise LocalProtocolError(f"unannounced listing of {event.server_label!r}")
        return listing.end(event)

    def executing(self, event: CallTool) -> list[Event]:
        call = self._mcp_calls.get(event.call_id)
        if call is None:
            raise LocalProtocolError(f"unannounced call {event.call_id!r}")
        call.asked = True
        return self._turn_is_over() + (call.work() if isinstance(call, OpenHosted) else [])

    def returned(self, event: ToolReturned) -> list[Event]:
        call = self._mcp_calls.pop(event.result.call_id, None)
        if call is None:
            raise LocalProtocolError(f"unannounced result of {event.result.call_id!r}")
        if isinstance(call, OpenHosted):
            self._sources |= call.pages(event.result)
        return self._turn_is_over() + call.answer(event.result)

    def waits(self, event: ApprovalOpened) -> list[Event]:
        return self._turn_is_over() + approval_request(self._output, event)

    def suspended(self, event: Suspended) -> list[Event]:
        call = self._mcp_calls.pop(event.call_id, None)
        if not isinstance(call, OpenMcpCall):
            raise LocalProtocolError(f"unannounced or hosted call {event.call_id!r} asks the user")
        self._asking[event.call_id] = call.id
        return self._turn_is_over() + call.suspend(ASKS_USER)

    def elicited(self, event: Elicited) -> list[Event]:
        return questions(self._output, event, self._asking.pop(event.call_id))

    def found(self, event: ToolsFound) -> list[Event]:
        return search_output(self._output, self._ids.new(PREFIXES["tool_search_output"]), event)

    def compacted(self, event: Compacted) -> list[Event]:
        if self._seal is None:
            raise LocalProtocolError("a summary, and nothing to seal it with")
        return compaction(self._output, self._ids.new(PREFIXES["compaction"]), event.summary, self._seal)

    # ── open items ────────────────────────────────────────────────────────────

    def _writing(self) -> tuple[OpenMessage, list[Event]]:
        """The message being written, and how it was announced if it is new."""
        if self._message is not None:
            return self._message, []
        self._message = message = OpenMessage(self._output, self._ids.new(PREFIXES["message"]))
        return message, message.begin()

    def _pondering(self) -> tuple[OpenReasoning, list[Event]]:
        if self._reasoning is not None:
            return self._reasoning, []
        identity = self._ids.new(PREFIXES["reasoning"])
        self._reasoning = reasoning = OpenReasoning(self._output, identity, self._thinking)
        return reasoning, reasoning.begin()

    def _calling(self, call: ToolCall) -> tuple[OpenCall | OpenMcpCall | OpenHosted, list[Event]]:
        known = self._mcp_calls.get(call.call_id) or self._calls.get(call.call_id)
        if known is not None:
            return known, []
        if call.server_label is None:
            prefix = PREFIXES["custom_tool_call" if call.kind == "custom" else "function_call"]
            self._calls[call.call_id] = new = OpenCall(self._output, self._ids.new(prefix), call)
        elif call.kind in HOSTINGS:
            identity = self._gateway_id(PREFIXES[HOSTINGS[call.kind].type])
            self._mcp_calls[call.call_id] = new = OpenHosted(self._output, identity, call, self._include)
        else:
            self._mcp_calls[call.call_id] = new = OpenMcpCall(
                self._output, self._gateway_id(PREFIXES["mcp_call"]), call
            )
        return new, new.begin()

    def _gateway_id(self, prefix: str) -> str:
        # All calls of a turn are answered before the next turn begins, so a call beside none begins a turn.
        if not self._mcp_calls:
            self._stem, self._of_turn = self._ids.new(prefix).removeprefix(f"{prefix}_"), 0
        self._of_turn += 1
        return nth_of_turn(f"{prefix}_{self._stem}", self._of_turn)

    def _turn_is_over(self) -> list[Event]:
        """The model has stopped: what it left open without an end says no more."""
        events = [] if self._reasoning is None else self._reasoning.close("completed")
        events += [] if self._message is None else self._message.close("completed")
        self._message = self._reasoning = None
        for call_id in [call_id for call_id, call in self._mcp_calls.items() if not call.said]:
            events += self._mcp_calls.pop(call_id).close("failed")
        return events

    def _foreign(self, opaque: Opaque) -> list[Event]:
        """An item of a kind we do not know, as it is."""
        item: dict[str, object] = dict(_fields.decode(opaque.raw))
        given = item.get("id")
        identity = _string.decode(given) if isinstance(given, Raw) else self._ids.new(PREFIXES.get(opaque.kind, "item"))
        item["id"] = identity
        begun = {**item, "status": "in_progress"} if "status" in item else item
        index, event = self._output.begin(begun)
        return [event, *self._output.end(index, item)]


def _ending(item: OpenItem, finish: Finish) -> Ending:
    """How an item ends that was open when the response did."""
    if isinstance(item, OpenCall) or finish.status != "completed":
        # Nobody may execute a call of which the model has not said all.
        return "incomplete"
    return "failed" if isinstance(item, OpenMcpCall | OpenHosted) else "completed"


def _begun(event: CallDelta) -> ToolCall:
    """The call of which this is the first that is heard."""
    return ToolCall(
        event.call_id,
        event.name,
        "",
        server_label=event.server_label,
        tool=event.tool,
        kind=event.kind,
        namespace=event.namespace,
    )


_CUT: dict[type, Ending] = {OpenCall: "incomplete", OpenMcpCall: "failed"}

_RULES: dict[type, Callable[[ResponseEncoder, Any], list[Event]]] = {
    TextDelta: ResponseEncoder.text,
    RefusalDelta: ResponseEncoder.refusal,
    ReasoningDelta: ResponseEncoder.reasoning,
    CallDelta: ResponseEncoder.call,
    ItemDone: ResponseEncoder.item_done,
    ListTools: ResponseEncoder.asked,
    ToolsListed: ResponseEncoder.listed,
    CallTool: ResponseEncoder.executing,
    ToolReturned: ResponseEncoder.returned,
    ApprovalOpened: ResponseEncoder.waits,
    Suspended: ResponseEncoder.suspended,
    Elicited: ResponseEncoder.elicited,
    ToolsFound: ResponseEncoder.found,
    Compacted: ResponseEncoder.compacted,
    TurnCut: ResponseEncoder.cut,
}
