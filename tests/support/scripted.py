"""A whole Responses service over scripted neighbours: a model that says what the test wrote, tools that answer from a
table. Every stream it makes is checked, and so is every body against the stream that made it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec

from app.dialects.openai_responses.check import check_events
from app.dialects.openai_responses.decode import decode_create
from app.history.memory import MemoryHistoryStore
from app.history.memory_prompts import MemoryPromptStore
from app.history.memory_runs import MemoryRunStore, Shelf
from app.mcp.approvals import MemoryApprovals
from app.mcp.elicitations import MemoryElicitations
from app.responses.ports import Continuation, Ledger, McpServer, ModelBackend, ModelInfo, Ports, RouteKey, ToolSession
from app.responses.runs import Runs
from app.responses.sealing import AesTokens
from app.responses.service import Responses
from app.responses.settings import ResponsesSettings
from app.turn.errors import Failure
from app.turn.events import (
    CallDelta,
    CallTool,
    Hear,
    ItemDone,
    ReasoningDelta,
    TextDelta,
    ToolsListed,
    TurnDone,
    TurnEvent,
    TurnFailed,
)
from app.turn.ids import CountedIds
from app.turn.items import (
    Message,
    Reasoning,
    Terms,
    Text,
    ToolCall,
    ToolKind,
    ToolListing,
    ToolResult,
    ToolSpec,
)
from app.turn.request import TurnRequest
from app.turn.usage import Usage

Json = dict[str, Any]
TERMS = Terms("here", "digest", "1")
SCHEMA = msgspec.Raw(b'{"type":"object","properties":{}}')


# ── what a model says ─────────────────────────────────────────────────────────


def says(text: str, usage: Usage | None = None) -> list[TurnEvent]:
    """An answer, in two pieces."""
    half = len(text) // 2
    pieces = [TextDelta(piece) for piece in (text[:half], text[half:]) if piece]
    return [*pieces, ItemDone(Message("assistant", (Text(text),))), TurnDone("stop", usage or Usage(10, 0, 5))]


def thinks(text: str) -> list[TurnEvent]:
    """A thought."""
    return [ReasoningDelta(text), ItemDone(Reasoning(text))]


def calls(*named: tuple[str, object], usage: Usage | None = None) -> list[TurnEvent]:
    """Calls by name, with arguments given as an object or as they are. Their ids count from `call_1`."""
    events: list[TurnEvent] = []
    for index, (name, given) in enumerate(named):
        arguments = given if isinstance(given, str) else msgspec.json.encode(given).decode()
        identity = f"call_{index + 1}"
        half = len(arguments) // 2
        events += [CallDelta(identity, name, ""), CallDelta(identity, name, arguments[:half])]
        events += [CallDelta(identity, name, arguments[half:]), ItemDone(ToolCall(identity, name, arguments))]
    return [*events, TurnDone("tool_calls", usage or Usage(10, 0, 5))]


def fails(code: str) -> list[TurnEvent]:
    """A turn the engine refuses."""
    return [TurnFailed(Failure(400, code, f"the engine says {code}"))]


# ── the neighbours ────────────────────────────────────────────────────────────


class ScriptedModel:
    """Says the next of its turns whenever it is asked, and remembers what it was asked. Every other delta is for those
    who hear."""

    def __init__(self) -> None:
        self.turns: list[list[TurnEvent]] = []
        self.asked: list[TurnRequest] = []

    async def stream(self, request: TurnRequest, hear: Hear | None = None) -> AsyncIterator[TurnEvent]:
        self.asked.append(request)
        for number, event in enumerate(self.turns.pop(0)):
            aloud = hear is not None and number % 2 and isinstance(event, TextDelta | ReasoningDelta | CallDelta)
            if not (aloud and hear(event)):
                yield event


class ScriptedFleet:
    """One model behind every name."""

    def __init__(self, model: ScriptedModel) -> None:
        self._model = model

    @asynccontextmanager
    async def lease(self, key: RouteKey, request: TurnRequest) -> AsyncGenerator[ModelBackend, None]:
        yield self._model

    def models(self, tenant: str) -> Sequence[ModelInfo]:
        return ()

    def ensure_model(self, tenant: str, model: str, target: str | None = None) -> None:
        return


class ScriptedTools:
    """MCP servers whose tools return what `results` says; `asking` are tools whose calls need approval."""

    def __init__(self) -> None:
        self.servers: dict[str, list[ToolSpec]] = {}
        self.results: dict[str, Callable[[str], str]] = {}
        self.roles: set[ToolKind] = set()
        self.pictures: dict[str, str] = {}
        self.called: list[CallTool] = []
        self.named: list[Sequence[McpServer]] = []

    def add(self, label: str, *names: str, ask: bool = False) -> None:
        """Give a server tools."""
        approval = "ask" if ask else "never"
        made = [ToolSpec(name, SCHEMA, f"does {name}", tool=name, approval=approval, terms=TERMS) for name in names]
        self.servers.setdefault(label, []).extend(made)

    @asynccontextmanager
    async def open(
        self,
        tenant: str,
        servers: Sequence[McpServer],
        continuation: Continuation | None,
        principal: str = "",
        ledger: Ledger | None = None,
    ) -> AsyncGenerator[ToolSession, None]:
        self.named.append(servers)
        yield self

    def plays(self, role: ToolKind) -> bool:
        return role in self.roles

    async def list_tools(self, server_label: str) -> ToolsListed:
        # No server answers in the moment it is asked.
        await asyncio.sleep(0)
        return ToolsListed(server_label, tuple(self.servers.get(server_label, ())))

    def recall(self, listing: ToolListing) -> ToolListing:
        return ToolListing(listing.server_label, tuple(self.servers.get(listing.server_label, ())))

    async def may_repeat(self, call: CallTool) -> bool:
        return False

    async def call(self, call: CallTool) -> ToolResult:
        self.called.append(call)
        await asyncio.sleep(0)
        said = self.results.get(call.tool, lambda given: f"{call.tool} got {given}")(call.arguments)
        return ToolResult(call.call_id, said, picture=self.pictures.get(call.tool))


class Hand:
    """A clock turned by hand."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time


# ── the world ─────────────────────────────────────────────────────────────────


class Answer:
    """A response as its client got it."""

    def __init__(self, body: Json, events: list[Json]) -> None:
        self.body = body
        self.events = events
        self.kinds = [event["type"] for event in events]

    @property
    def output(self) -> list[Json]:
        """Its items."""
        return self.body["output"]

    @property
    def types(self) -> list[str]:
        """The types of its items."""
        return [item["type"] for item in self.output]

    def item(self, kind: str) -> Json:
        """The only item of that type."""
        (found,) = [item for item in self.output if item["type"] == kind]
        return found


class Scripted:
    """The service, and its neighbours to be scripted. `restart` keeps what is stored and nothing else."""

    def __init__(self, **settings: Any) -> None:
        self.model = ScriptedModel()
        self.tools = ScriptedTools()
        self.clock = Hand()
        self.history = MemoryHistoryStore()
        self.shelf = Shelf()
        self.prompts = MemoryPromptStore()
        self.approvals = MemoryApprovals(self.clock)
        self.elicitations = MemoryElicitations(self.clock)
        self.sealer = AesTokens(b"k" * 32)
        self._settings = ResponsesSettings(**settings)
        self._ids = CountedIds()
        self._processes = count()
        self.restart()

    def restart(self) -> None:
        """A new process over the same stores."""
        self.live = Runs()
        self.runs = MemoryRunStore(self.shelf, self.history, f"process {next(self._processes)}", self.clock.now, 30.0)
        self.ports = Ports(
            fleet=ScriptedFleet(self.model),
            tools=self.tools,
            approvals=self.approvals,
            elicitations=self.elicitations,
            history=self.history,
            conversations=self.history.conversations,
            prompts=self.prompts,
            runs=self.runs,
            events=self.runs,
            sealer=self.sealer,
            clock=self.clock,
            ids=self._ids,
        )
        self.service = Responses(self.ports, self.live, self._settings)

    async def ask(self, *turns: list[TurnEvent], principal: str = "", tenant: str = "t", **request: Any) -> Answer:
        """Create a response whose model says `turns`. Its stream must be legal and agree with its body."""
        self.model.turns = list(turns)
        self.model.asked.clear()
        body = msgspec.json.encode({"model": "m", **request})
        run = await self.service.create(tenant, decode_create(body), principal)
        events = [msgspec.json.decode(event.data) async for batch in run.follow() for event in batch]
        whole = msgspec.json.decode(await run.result())
        faults = check_events(events)
        assert faults == [], faults
        assert events[-1]["response"]["output"] == whole["output"]
        assert self.model.turns == [], "the model was not asked for all of its turns"
        return Answer(whole, events)

    @property
    def last(self) -> TurnRequest:
        """What the model was asked last."""
        return self.model.asked[-1]

    def told(self, turn: int = -1) -> list[tuple[str, str]]:
        """The context of a turn as (kind, text), calls as name and arguments; without listings, which are not shown."""
        return [_told(item) for item in self.model.asked[turn].items if not isinstance(item, ToolListing)]


def _told(item: Any) -> tuple[str, str]:
    match item:
        case Message():
            return item.role, item.text
        case Reasoning():
            return "reasoning", item.text
        case ToolCall():
            return "call", f"{item.name}{item.arguments}"
        case ToolResult():
            return "result", item.output if isinstance(item.output, str) else str(item.output)
        case _:
            return type(item).__name__, ""
