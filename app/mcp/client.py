"""One connection to one MCP server, through the SDK's session and its types. `connecting` makes them.

Everything the SDK, pydantic or the network can raise becomes `McpFailure` here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, cast

from mcp import ClientSession, MCPError, types
from msgspec import Raw, Struct, json, structs
from opentelemetry import baggage, context
from pydantic import TypeAdapter, ValidationError

from app.mcp import stdio
from app.mcp.definitions import Offer
from app.mcp.failure import CLOSED, TIMED_OUT, UNREADABLE, McpFailure, broken, clip
from app.mcp.guard import Faulted
from app.mcp.held import Talk, Talks
from app.mcp.questions import Given, Needed, needed, responses, visits
from app.mcp.results import as_text, picture
from app.mcp.settings import McpSettings
from app.turn.items import ToolError, ToolSpec

_MODERN = frozenset({"2026-07-28"})
_RESULT: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)


IDEMPOTENCY_KEY = "shepherd/idempotency-key"
OPTIONS_KEY = "shepherd/tool-options"
# A server may say that it is not ready yet, and be asked again (as the SDK's client does).
_MOST_PAUSES = 10
_PAUSE_SECS = 0.05


class Answer(Struct, frozen=True):
    """What a tool returned. `is_error`: the tool itself says that it failed, and `text` is how.

    `text` is all of it as a model reads it, `content` and `structured` what the server sent; `cut` where that is more
    than is shown.
    """

    text: str
    is_error: bool
    content: tuple[dict[str, Any], ...] = ()
    structured: Any = None
    cut: bool = False

    @property
    def picture(self) -> str | None:
        """The first image of it, as base64."""
        return picture(self.content)


class Progress(Struct, frozen=True):
    """How far a call is; `total` in the same unit as `done`, where the server knows it."""

    done: float
    total: float | None
    message: str | None


class Link:
    """An open connection. Any task may use it; only the one that opened it may close it. `known` tells whether the
    server can tell this session's requests from others. Its tools may ask a user where it has `talks`."""

    def __init__(
        self,
        session: ClientSession,
        label: str,
        settings: McpSettings,
        pipes: stdio.Pipes | None,
        changes: Changes,
        known: Callable[[], bool],
        talks: Talks | None = None,
    ) -> None:
        self._session = session
        self._label = label
        self._settings = settings
        self._pipes = pipes
        self._changes = changes
        self._known = known
        self._talks = talks
        self._offers: tuple[Offer, ...] = ()
        self._fresh_until = float("-inf")

    @property
    def protocol(self) -> str:
        """The protocol version both sides agreed on."""
        return self._session.protocol_version or ""

    @property
    def stateless(self) -> bool:
        """Whether the server keeps nothing between requests: its protocol version demands that, or nothing tells the
        server which requests are ours."""
        return self._modern or not self._known()

    @property
    def _modern(self) -> bool:
        return self.protocol in _MODERN

    @property
    def elicits(self) -> bool:
        """Whether its tools may ask a user."""
        return self._talks is not None

    @property
    def gone(self) -> bool:
        """Whether the server is known to have hung up."""
        return self._pipes is not None and self._pipes.gone

    @property
    def server(self) -> str:
        """The server's own name and version, as far as it tells."""
        info = self._session.server_info
        return "" if info is None else clip(f"{info.name} {info.version}", 200)

    async def list_tools(self, *, fresh: bool = False) -> tuple[Offer, ...]:
        """All tools, in the server's order, as they were told a moment ago where the server tells when they change.

        `fresh` asks in any case. Raises `McpFailure`, also for more pages or tools than are allowed.
        """
        now = asyncio.get_running_loop().time()
        if not fresh and now < self._fresh_until and not self._changes.seen:
            return self._offers
        self._changes.seen = False
        self._offers, seconds = await self._listed()
        self._fresh_until = now + min(seconds, self._settings.list_ttl_secs)
        return self._offers

    async def _listed(self) -> tuple[tuple[Offer, ...], float]:
        seconds = self._settings.list_timeout_secs
        with sdk_errors(self._label):
            try:
                async with asyncio.timeout(seconds):
                    return await self._all_pages()
            except TimeoutError:
                raise broken(
                    f"MCP server '{self._label}' did not list its tools in {seconds:g} s.", TIMED_OUT
                ) from None

    async def call(
        self,
        tool: str,
        arguments: dict[str, Any],
        limits: Limits,
        *,
        meta: Mapping[str, Any] | None = None,
        given: Given | None = None,
        talk: Talk | None = None,
    ) -> Answer | Needed:
        """Call `tool`, or go on with a call by what is `given`; what it needs of the user where that `elicits`. What
        servers of the older protocol ask meanwhile is asked in `talk`.

        Raises `McpFailure`. Cancelling the awaiting task cancels the call on the server.
        `meta` is the request's `_meta`. With an `IDEMPOTENCY_KEY` in it, a server need not make a call it knows twice.
        """
        with sdk_errors(self._label):
            around: Any = dict(meta) if meta else None
            params = types.CallToolRequestParams(name=tool, arguments=arguments, _meta=around)  # pyright: ignore[reportArgumentType] - any key may be there
            if self._talks is not None and talk is not None:
                self._talks.begin(talk)
            try:
                return self._answer(await self._rounds(params, structs.replace(limits, talk=talk), given), limits)
            except TimeoutError:
                raise broken(f"MCP server '{self._label}' did not answer in time.", TIMED_OUT) from None
            except MCPError as error:
                if not self.elicits or error.code != types.URL_ELICITATION_REQUIRED:
                    raise
                return visits(self._label, error)
            finally:
                if self._talks is not None and talk is not None:
                    self._talks.end(talk)

    async def _rounds(
        self, params: types.CallToolRequestParams, limits: Limits, given: Given | None
    ) -> types.CallToolResult | types.InputRequiredResult:
        """The result, or what the user is needed for; a server that only wants to be asked again is."""
        told, state = responses(given), None if given is None else given.state
        for pause in range(_MOST_PAUSES):
            if (told, state) != (params.input_responses, params.request_state):
                params = params.model_copy(update={"input_responses": told, "request_state": state})
            result = await self._ask(types.CallToolRequest(params=params), limits)
            if isinstance(result, types.CallToolResult) or result.input_requests or not self.elicits:
                return result
            told, state = None, result.request_state
            await asyncio.sleep(_PAUSE_SECS * (pause + 1))
        raise broken(f"MCP server '{self._label}' asks for patience again and again; the call was given up.")

    async def _all_pages(self) -> tuple[tuple[Offer, ...], float]:
        """The tools, and for how many seconds they are good."""
        tools: dict[str, Offer] = {}
        good_for = float("inf")
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(self._settings.max_pages):
            page = await self._session.list_tools(params=types.PaginatedRequestParams(cursor=cursor))
            for tool in page.tools:
                tools.setdefault(tool.name, _offer(tool, self._label))
            good_for = min(good_for, self._good_for(page))
            if len(tools) > self._settings.max_tools:
                raise broken(f"MCP server '{self._label}' offers more than {self._settings.max_tools} tools.")
            cursor = page.next_cursor
            if cursor is None:
                return tuple(tools.values()), good_for
            if cursor in seen:
                raise broken(f"MCP server '{self._label}' repeats itself in its list of tools.")
            seen.add(cursor)
        raise broken(f"MCP server '{self._label}' has more than {self._settings.max_pages} pages of tools.")

    def _good_for(self, page: types.ListToolsResult) -> float:
        if self._modern:
            return page.ttl_ms / 1000
        capabilities = self._session.server_capabilities
        tools = None if capabilities is None else capabilities.tools
        return float("inf") if tools is not None and tools.list_changed else 0.0

    async def _ask(
        self, request: types.CallToolRequest, limits: Limits
    ) -> types.CallToolResult | types.InputRequiredResult:
        # Not `call_tool`: it checks results against schemas of the server's choosing, with regular expressions that may
        # never end, and lists the tools behind our back when it has no schema.
        loop = asyncio.get_running_loop()
        latest = loop.time() + limits.most_secs

        def patient_until() -> float:
            return min(latest, loop.time() + limits.silent_secs)

        async with asyncio.timeout_at(patient_until()) as patience:

            async def progressed(progress: float, total: float | None, message: str | None) -> None:
                # Reports are delivered by tasks of their own: one may come after the call is over.
                with suppress(RuntimeError):
                    patience.reschedule(patient_until())
                if limits.on_progress is not None:
                    limits.on_progress(Progress(progress, total, message))

            async def pausing(talk: Talk) -> None:
                # A person takes as long as the call may take at all.
                while True:
                    await talk.asked()
                    patience.reschedule(latest)
                    await talk.answered()
                    patience.reschedule(patient_until())

            async def send() -> types.CallToolResult | types.InputRequiredResult:
                return await self._session.send_request(request, _RESULT, progress_callback=progressed)

            pause = None if limits.talk is None else asyncio.create_task(pausing(limits.talk))
            try:
                return await send()
            except MCPError as error:
                # The server wants headers that only its listing tells, and did nothing yet.
                if error.code != types.HEADER_MISMATCH:
                    raise
            finally:
                if pause is not None:
                    pause.cancel()
            await self._all_pages()
            return await send()

    def _answer(self, result: types.CallToolResult | types.InputRequiredResult, limits: Limits) -> Answer | Needed:
        if isinstance(result, types.InputRequiredResult):
            if not self.elicits:
                raise broken(f"MCP server '{self._label}' asks for further input, which is not allowed here.")
            return needed(self._label, result)
        blocks = [block.model_dump(by_alias=True, mode="json", exclude_none=True) for block in result.content]
        text = as_text(blocks, result.structured_content, limits.result_bytes)
        cut = len(json.encode(blocks)) > limits.result_bytes
        return Answer(text, bool(result.is_error), tuple(blocks), result.structured_content, cut)


class Limits(Struct, frozen=True, kw_only=True):
    """Of one call: the longest silence and the longest wait in seconds, the longest result in bytes. While the user is
    asked in `talk`, only the longest wait counts."""

    silent_secs: float
    most_secs: float
    result_bytes: int
    on_progress: Callable[[Progress], None] | None = None
    talk: Talk | None = None


class Changes(Struct):
    """Whether the server has said that its tools changed."""

    seen: bool = False

    async def note(self, message: object) -> None:
        """A message of the server's."""
        if isinstance(message, types.ToolListChangedNotification):
            self.seen = True
        await asyncio.sleep(0)


def _offer(tool: types.Tool, label: str) -> Offer:
    unseen = {"title": tool.title, "output_schema": tool.output_schema}
    return Offer(_spec(tool, label), Raw(json.encode(unseen)))


def _spec(tool: types.Tool, label: str) -> ToolSpec:
    notes = tool.annotations
    return ToolSpec(
        name=tool.name,
        tool=tool.name,
        server_label=label,
        parameters=Raw(json.encode(tool.input_schema)),
        description=tool.description,
        annotations=Raw(json.encode(notes.model_dump(by_alias=True, mode="json", exclude_none=True)))
        if notes is not None
        else None,
    )


@contextmanager
def sdk_errors(label: str) -> Generator[None, None, None]:
    """Turn what the SDK raises into `McpFailure`, and keep OpenTelemetry baggage on this side of the types."""
    token = context.attach(baggage.clear()) if baggage.get_all() else None
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the SDK raises anything, and wraps it in groups while it connects
        raise _failure(label, _leaf(error)) from None
    finally:
        if token is not None:
            context.detach(token)


def _leaf(error: BaseException) -> BaseException:
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return _leaf(group.exceptions[0]) if len(group.exceptions) == 1 else group


def _failure(label: str, error: BaseException) -> McpFailure:
    match error:
        case McpFailure():
            return error
        case Faulted(fault=fault):
            kind = "http_error" if fault.kind == "http" else "mcp_protocol_error"
            said = ToolError(kind, f"MCP server '{label}' {fault.message}.", fault.code)
            return McpFailure(said, lost=fault.lost, refused=fault.lost)
        case MCPError():
            return _said(label, error)
        case ValidationError():
            return broken(f"MCP server '{label}' answered with something that is not valid MCP.", UNREADABLE)
        case _:
            return broken(f"MCP server '{label}' could not be used ({type(error).__name__}).", lost=True)


def _said(label: str, error: MCPError) -> McpFailure:
    if error.code == CLOSED and error.message == "Connection closed":
        return broken(f"MCP server '{label}' closed the connection.", CLOSED, lost=True)
    said = ToolError("mcp_protocol_error", f"MCP server '{label}': {clip(error.message)} ({error.code})", error.code)
    other_era = error.code == types.UNSUPPORTED_PROTOCOL_VERSION
    return McpFailure(said, lost=other_era, refused=other_era)
