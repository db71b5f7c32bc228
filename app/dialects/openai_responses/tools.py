"""The tools of a request: what the client executes, MCP servers whose tools the gateway executes, and hosted tools.

They come in three places: in `tools`, in items that add tools in the course of the conversation, and in what a search
that the client executed has found. All are read the same way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw, Struct, structs

from app.dialects.openai_responses import not_yet
from app.dialects.openai_responses.client_calls import OFFERED, custom_parameters
from app.dialects.openai_responses.faults import absent, read, wrong
from app.dialects.openai_responses.hosted_options import read_options
from app.dialects.openai_responses.local_tools import EXECUTED_BY_CLIENT, local_tool
from app.dialects.openai_responses.wire import (
    NULL,
    ApprovalFilters,
    CustomToolBody,
    FunctionToolBody,
    Grammar,
    Head,
    McpToolBody,
    NamespaceBody,
    PlainToolBody,
    SearchToolBody,
    ToolFilter,
)
from app.turn import request as turn
from app.turn.items import ToolKind, ToolSpec
from app.turn.names import flat
from app.turn.request import ApprovalRule, McpServer

NO_PARAMETERS = Raw(b'{"type":"object","properties":{}}')

# Types of tools that mean the same: the API gave some of them new names, with a date or without.
HOSTED: Mapping[str, ToolKind] = {
    "web_search": "web_search",
    "web_search_2025_08_26": "web_search",
    "web_search_preview": "web_search",
    "web_search_preview_2025_03_11": "web_search",
    "file_search": "file_search",
    "code_interpreter": "code_interpreter",
    "image_generation": "image_generation",
}

_head = msgspec.json.Decoder(Head)
_function = msgspec.json.Decoder(FunctionToolBody)
_custom = msgspec.json.Decoder(CustomToolBody)
_namespace = msgspec.json.Decoder(NamespaceBody)
_search = msgspec.json.Decoder(SearchToolBody)
_plain = msgspec.json.Decoder(PlainToolBody)
_mcp = msgspec.json.Decoder(McpToolBody)
_object = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode

# RFC 9110, section 5: what may stand in a header.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")


class Hosted(Struct, frozen=True):
    """A hosted tool that is asked for: its kind, the path of the field that says so, and what is set about it."""

    kind: ToolKind
    path: str
    options: Mapping[str, Raw] = msgspec.field(default_factory=dict[str, Raw])


class Tools(Struct, frozen=True, kw_only=True):
    """A list of tools, read. `specs` are those the client executes, in its order; `about` describes namespaces and
    servers by their names. `deferred_at` is the path of the first tool that waits for a search."""

    specs: tuple[ToolSpec, ...] = ()
    servers: tuple[McpServer, ...] = ()
    hosted: tuple[Hosted, ...] = ()
    about: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    deferred_at: str | None = None

    @property
    def searches(self) -> bool:
        """Whether there is a tool that finds deferred ones."""
        return any(spec.kind in {"tool_search", "server_tool_search"} for spec in self.specs)

    def and_then(self, later: Tools) -> Tools:
        """These, and those of `later` that are not there yet."""
        names = {spec.name for spec in self.specs}
        labels = {server.label for server in self.servers}
        kinds = {hosted.kind for hosted in self.hosted}
        return Tools(
            specs=(*self.specs, *(spec for spec in later.specs if spec.name not in names)),
            servers=(*self.servers, *(server for server in later.servers if server.label not in labels)),
            hosted=(*self.hosted, *(hosted for hosted in later.hosted if hosted.kind not in kinds)),
            about={**later.about, **self.about},
            deferred_at=self.deferred_at or later.deferred_at,
        )


class _Tool(NamedTuple):
    path: str
    kind: str
    raw: Raw


class _Reading:
    """What has been read of a list of tools."""

    def __init__(self) -> None:
        self.specs: dict[str, ToolSpec] = {}
        self.servers: dict[str, McpServer] = {}
        self.hosted: dict[ToolKind, Hosted] = {}
        self.about: dict[str, str] = {}
        self.deferred_at: str | None = None

    def add(self, spec: ToolSpec, path: str) -> None:
        if spec.name in self.specs:
            raise wrong(path, f"there is already a tool named '{spec.name}'.")
        self.specs[spec.name] = spec
        if spec.deferred:
            self.deferred_at = self.deferred_at or f"{path.removesuffix('.name')}.defer_loading"


def read_tools(raws: Sequence[Raw] | None, path: str = "tools") -> Tools:
    """The tools in `raws`, which are at `path` of the request.

    Raises `InvalidRequest` with the path of the wrong field: a missing or bad name, a name given twice, a schema that
    is no object, a kind of tool there is none of; a label of a server that is missing, malformed or given twice, two
    addresses at once, an address that is no HTTP URL, headers that cannot be sent.
    """
    reading = _Reading()
    for tool in _each(raws or (), path):
        _read_one(tool, reading)
    return Tools(
        specs=tuple(reading.specs.values()),
        servers=tuple(reading.servers.values()),
        hosted=tuple(reading.hosted.values()),
        about=reading.about,
        deferred_at=reading.deferred_at,
    )


def is_object(raw: Raw) -> bool:
    """Whether the JSON is an object."""
    return bytes(raw).lstrip()[:1] == b"{"


def _each(raws: Sequence[Raw], path: str) -> Iterator[_Tool]:
    for index, raw in enumerate(raws):
        here = f"{path}[{index}]"
        kind = read(_head, raw, here).type
        if kind is None:
            raise absent(f"{here}.type")
        yield _Tool(here, kind, raw)


def _read_one(tool: _Tool, reading: _Reading) -> None:
    match tool.kind:
        case "function" | "custom":
            reading.add(_own(tool, None), f"{tool.path}.name")
        case "namespace":
            _read_namespace(tool, reading)
        case "mcp":
            _read_server(tool, reading)
        case "tool_search":
            reading.add(_searching(tool), f"{tool.path}.type")
        case kind if kind in EXECUTED_BY_CLIENT:
            reading.add(local_tool(kind, tool.raw, tool.path), f"{tool.path}.type")
        case kind if kind in HOSTED:
            if HOSTED[kind] in reading.hosted:
                raise wrong(f"{tool.path}.type", f"there is already a tool '{HOSTED[kind]}'.")
            not_yet.check(read(_plain, tool.raw, tool.path), not_yet.PLAIN_TOOL, f"{tool.path}.")
            options = read_options(HOSTED[kind], tool.raw, tool.path)
            reading.hosted[HOSTED[kind]] = Hosted(HOSTED[kind], f"{tool.path}.type", options)
        case kind:
            raise not_yet.refuse(f"{tool.path}.type", f"There are no tools of type '{kind[:64]}' here.")


def _read_namespace(tool: _Tool, reading: _Reading) -> None:
    body = read(_namespace, tool.raw, tool.path)
    reading.about[body.name] = body.description or ""
    for inner in _each(body.tools, f"{tool.path}.tools"):
        if inner.kind not in {"function", "custom"}:
            raise wrong(f"{inner.path}.type", "a namespace holds functions and custom tools.")
        reading.add(_own(inner, body.name), f"{inner.path}.name")


def _read_server(tool: _Tool, reading: _Reading) -> None:
    body = read(_mcp, tool.raw, tool.path)
    not_yet.check(body, not_yet.MCP_TOOL, f"{tool.path}.")
    if body.server_label in reading.servers:
        raise wrong(f"{tool.path}.server_label", f"there is already a server labelled '{body.server_label}'.")
    reading.servers[body.server_label] = _server(body, tool.path)
    reading.about[body.server_label] = body.server_description or ""
    if body.defer_loading:
        reading.deferred_at = reading.deferred_at or f"{tool.path}.defer_loading"


def _own(tool: _Tool, namespace: str | None) -> ToolSpec:
    """A function or a custom tool, at the top or in a namespace."""
    if tool.kind == "custom":
        custom = read(_custom, tool.raw, tool.path)
        not_yet.check(custom, not_yet.FUNCTION_TOOL, f"{tool.path}.")
        grammar = _format(custom.format, f"{tool.path}.format")
        own = custom.name
        spec = ToolSpec(
            name=flat(namespace, own),
            parameters=custom_parameters(None if grammar is None else structs.asdict(grammar)),
            description=custom.description,
            kind="custom",
            deferred=custom.defer_loading is True,
            grammar=None if grammar is None else Raw(_encode(grammar)),
        )
    else:
        body = read(_function, tool.raw, tool.path)
        not_yet.check(body, not_yet.FUNCTION_TOOL, f"{tool.path}.")
        own = body.name
        spec = ToolSpec(
            name=flat(namespace, own),
            parameters=_schema(body.parameters, f"{tool.path}.parameters"),
            description=body.description,
            strict=body.strict,
            deferred=body.defer_loading is True,
        )
    return spec if namespace is None else structs.replace(spec, namespace=namespace, tool=own)


def _format(given: Grammar | None, path: str) -> Grammar | None:
    if given is None or given.type == "text":
        return None
    if given.syntax is None:
        raise absent(f"{path}.syntax")
    if given.definition is None:
        raise absent(f"{path}.definition")
    return given


def _searching(tool: _Tool) -> ToolSpec:
    body = read(_search, tool.raw, tool.path)
    if body.execution != "client":
        return OFFERED["server_tool_search"]
    offered = OFFERED["tool_search"]
    given = body.parameters != NULL
    return structs.replace(
        offered,
        description=body.description or offered.description,
        parameters=_schema(body.parameters, f"{tool.path}.parameters") if given else offered.parameters,
    )


def _schema(parameters: Raw, path: str) -> Raw:
    if parameters == NULL:
        return NO_PARAMETERS
    if not is_object(parameters):
        raise wrong(path, "a JSON Schema object is expected.")
    read(_object, parameters, path)
    return parameters.copy()


def _server(body: McpToolBody, path: str) -> McpServer:
    if body.server_url is not None and body.connector_id is not None:
        raise wrong(f"{path}.connector_id", "give either 'server_url' or 'connector_id', not both.")
    if body.server_url is not None and not _is_http(body.server_url):
        raise wrong(f"{path}.server_url", "an http or https URL is expected.")
    headers = body.headers or {}
    for name, value in headers.items():
        if not _HEADER_NAME.match(name) or not _HEADER_VALUE.match(value):
            raise wrong(f"{path}.headers", "a name or a value holds characters that HTTP does not allow.")
    if body.authorization is not None:
        if not _HEADER_VALUE.match(body.authorization):
            raise wrong(f"{path}.authorization", "it holds characters that HTTP does not allow.")
        if any(name.lower() == "authorization" for name in headers):
            raise wrong(f"{path}.authorization", "give it here or in 'headers', not in both.")
    allowed = body.allowed_tools
    only = allowed if isinstance(allowed, ToolFilter) else ToolFilter(tool_names=allowed)
    return McpServer(
        label=body.server_label,
        url=body.server_url,
        connector_id=body.connector_id,
        authorization=body.authorization,
        headers=headers,
        allowed=None if only.tool_names is None else tuple(only.tool_names),
        read_only=only.read_only,
        require_approval=_rule(body.require_approval),
        defer_loading=body.defer_loading is True,
        description=body.server_description,
        path=path,
    )


def _rule(given: str | ApprovalFilters | None) -> ApprovalRule:
    """What asks is what the API says asks: everything, unless the request says otherwise."""
    if isinstance(given, ApprovalFilters):
        return ApprovalRule(always=_filter(given.always), never=_filter(given.never))
    return ApprovalRule(mode="never" if given == "never" else "always")


def _filter(given: ToolFilter | None) -> turn.ToolFilter | None:
    if given is None:
        return None
    return turn.ToolFilter(
        names=None if given.tool_names is None else tuple(given.tool_names), read_only=given.read_only
    )


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
