"""Calls of hosted tools in the output, and items that are there all at once.

A hosted tool is played by an MCP server, and shown as what it is to the client: a search, a piece of code, an image.
`arguments` and `output` are beyond the contract: they are what the model wrote and read, and bring the item back into a
later context as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias, cast

import msgspec
from msgspec import Struct

from app.dialects.openai_responses.events import Event, Streamed, Wording
from app.dialects.openai_responses.output_items import Ending, Open, Output
from app.dialects.openai_responses.sealed import Seal, Sealed
from app.dialects.openai_responses.sources import sources
from app.turn.events import ApprovalOpened, ToolsFound
from app.turn.items import Text, ToolCall, ToolKind, ToolResult, ToolSpec

Given: TypeAlias = Mapping[str, Any]

_CODE = Wording("response.code_interpreter_call_code.delta", "response.code_interpreter_call_code.done", "code")
_object = msgspec.json.Decoder(dict[str, Any])


class Hosting(Struct, frozen=True):
    """How a hosted tool is shown: its item, the step in which it works, and its fields from arguments and result."""

    type: str
    works: str
    fields: Callable[[Given, str, Collection[str]], dict[str, Any]]


def _query(given: Given) -> list[str]:
    for name in ("query", "queries", "q", "search_query"):
        found = given.get(name)
        if isinstance(found, str):
            return [found]
        if isinstance(found, list):
            return [str(each) for each in cast("list[Any]", found)]
    return [each for each in given.values() if isinstance(each, str)][:1]


def _web_search(given: Given, output: str, include: Collection[str]) -> dict[str, Any]:
    queries = _query(given)
    action: dict[str, Any] = {"type": "search", "query": queries[0] if queries else "", "queries": queries}
    if "web_search_call.action.sources" in include:
        action["sources"] = [{"type": "url", "url": url} for url in sources(output)]
    return {"action": action}


def _file_search(given: Given, output: str, include: Collection[str]) -> dict[str, Any]:
    shown = "file_search_call.results" in include and output
    return {"queries": _query(given), "results": [{"text": output}] if shown else None}


def _code(given: Given, output: str, include: Collection[str]) -> dict[str, Any]:
    code = given.get("code")
    shown = "code_interpreter_call.outputs" in include and output
    outputs = [{"type": "logs", "logs": output}] if shown else None
    return {"code": code if isinstance(code, str) else "", "container_id": "mcp", "outputs": outputs}


def _image(given: Given, _output: str, _include: Collection[str]) -> dict[str, Any]:
    prompt = given.get("prompt")
    return {"result": None, "revised_prompt": prompt if isinstance(prompt, str) else None}


HOSTINGS: Mapping[ToolKind, Hosting] = {
    "web_search": Hosting("web_search_call", "searching", _web_search),
    "file_search": Hosting("file_search_call", "searching", _file_search),
    "code_interpreter": Hosting("code_interpreter_call", "interpreting", _code),
    "image_generation": Hosting("image_generation_call", "generating", _image),
}


def given_in(arguments: str) -> Given:
    """What a model gave a tool; nothing where that is no object."""
    try:
        return _object.decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return {}


class OpenHosted(Open):
    """A call of a hosted tool: the model says it, an MCP server does it."""

    def __init__(self, output: Output, item_id: str, call: ToolCall, include: Collection[str]) -> None:
        self._hosting = HOSTINGS[call.kind]
        super().__init__(output, item_id, self._hosting.type)
        self._call = call
        self._include = include
        self.said = True
        self.asked = False
        self._given = given_in(call.arguments)

    def begin(self) -> list[Event]:
        """Announce it."""
        fields = self._fields("")
        code = fields.get("code")
        begun = fields if code is None else {**fields, "code": ""}
        events = [self._begin(status="in_progress", **begun), self._step("in_progress")]
        if code is not None:
            events += Streamed(self._output.writer, _CODE, self._place()).finish(code)
        return events

    def end(self, _arguments: str | None) -> list[Event]:
        """The model has said all of it from the beginning."""
        return []

    def add(self, _text: str) -> list[Event]:
        """Nothing is shown of it while it is written."""
        return []

    def work(self) -> list[Event]:
        """The server is asked."""
        self.asked = True
        return [self._step(self._hosting.works)]

    def answer(self, result: ToolResult) -> list[Event]:
        """The server answered, or was not there."""
        text = result.output if isinstance(result.output, str) else _texts(result)
        kept = {"arguments": self._call.arguments, "output": text, "model_call_id": self._call.call_id}
        if result.error is not None:
            return self._end(status="failed", **self._fields(""), **kept)
        events = [] if self.asked else self.work()
        fields = self._fields(text)
        if self._call.kind == "image_generation":
            fields["result"] = result.picture
        return [*events, self._step("completed"), *self._end(status="completed", **fields, **kept)]

    def pages(self, result: ToolResult) -> dict[str, str]:
        """The pages that a search's result names: their titles by URL."""
        searched = self._call.kind == "web_search" and isinstance(result.output, str) and result.error is None
        return sources(str(result.output)) if searched else {}

    def close(self, status: Ending) -> list[Event]:
        """The response ends before there is an answer."""
        return self._end(status="failed" if self.asked else status, **self._fields(""))

    def _fields(self, output: str) -> dict[str, Any]:
        return self._hosting.fields(self._given, output, self._include)

    def _step(self, step: str) -> Event:
        return self._event(f"response.{self._hosting.type}.{step}")


def _texts(result: ToolResult) -> str:
    return "\n".join(part.text for part in result.output if isinstance(part, Text))


# ── all at once ───────────────────────────────────────────────────────────────


def approval_request(output: Output, asked: ApprovalOpened) -> list[Event]:
    """A call that waits for a person's word."""
    return _whole(
        output,
        {
            "id": asked.approval_id,
            "type": "mcp_approval_request",
            "server_label": asked.server_label,
            "name": asked.tool,
            "arguments": asked.arguments,
        },
    )


def search_output(output: Output, item_id: str, found: ToolsFound) -> list[Event]:
    """What a search of ours has found."""
    item = {"id": item_id, "type": "tool_search_output", "call_id": found.call_id, "execution": "server"}
    item["status"] = "in_progress"
    index, added = output.begin({**item, "tools": []})
    done = {**item, "status": "completed", "tools": found_tools(found.tools)}
    return [added, *output.end(index, done)]


def compaction(output: Output, item_id: str, summary: str, seal: Seal) -> list[Event]:
    """A summary of what came before, sealed."""
    item = {"id": item_id, "type": "compaction"}
    index, added = output.begin({**item, "encrypted_content": ""})
    fields = b'"item_id":"%b","output_index":%d' % (item_id.encode(), index)
    compacting = output.writer.event("response.compaction.compacting", fields)
    return [added, compacting, *output.end(index, {**item, "encrypted_content": seal(Sealed("compaction", summary))})]


def found_tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Tools as the API lists them. Those of a server stand in a namespace that has its label."""
    listed: list[dict[str, Any]] = []
    for tool in tools:
        home = tool.namespace or tool.server_label
        if home is None:
            listed.append(_tool(tool))
        elif listed and listed[-1].get("name") == home and listed[-1]["type"] == "namespace":
            listed[-1]["tools"].append(_tool(tool))
        else:
            listed.append({"type": "namespace", "name": home, "description": "", "tools": [_tool(tool)]})
    return listed


def _tool(tool: ToolSpec) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": "function", "name": tool.tool or tool.name, "description": tool.description}
    if tool.kind == "custom":
        shown["type"] = "custom"
        return shown if tool.grammar is None else {**shown, "format": tool.grammar}
    return {**shown, "parameters": tool.parameters, "strict": tool.strict, "defer_loading": True}


def _whole(output: Output, item: Mapping[str, object]) -> list[Event]:
    index, added = output.begin(item)
    return [added, *output.end(index, item)]
