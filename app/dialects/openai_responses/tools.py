"""The tools of a request: functions the client executes, and MCP servers whose tools the gateway executes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw

from app.dialects.openai_responses import not_yet
from app.dialects.openai_responses.faults import absent, read, wrong
from app.dialects.openai_responses.wire import NULL, CreateResponse, FunctionToolBody, Head, McpToolBody, ToolFilter
from app.turn.items import ToolSpec
from app.turn.request import NEVER_ASK, McpServer

NO_PARAMETERS = Raw(b'{"type":"object","properties":{}}')

_head = msgspec.json.Decoder(Head)
_function = msgspec.json.Decoder(FunctionToolBody)
_mcp = msgspec.json.Decoder(McpToolBody)
_object = msgspec.json.Decoder(dict[str, Raw])

# RFC 9110, section 5: what may stand in a header.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")


class _Tool(NamedTuple):
    path: str
    kind: str
    raw: Raw


def function_tools(request: CreateResponse) -> tuple[ToolSpec, ...]:
    """The functions the client offers, in its order.

    Raises `InvalidRequest` with the path of the wrong field: a missing or bad name, a name given twice, a schema that
    is no object, a kind of tool there is none of.
    """
    specs: dict[str, ToolSpec] = {}
    for tool in _tools(request):
        if tool.kind != "function":
            continue
        body = read(_function, tool.raw, tool.path)
        not_yet.check(body, not_yet.FUNCTION_TOOL, f"{tool.path}.")
        if body.name in specs:
            raise wrong(f"{tool.path}.name", f"there is already a tool named '{body.name}'.")
        specs[body.name] = ToolSpec(
            name=body.name,
            parameters=_schema(body.parameters, f"{tool.path}.parameters"),
            description=body.description,
            strict=body.strict,
        )
    return tuple(specs.values())


def servers(request: CreateResponse) -> tuple[McpServer, ...]:
    """The MCP servers the request names, in its order.

    Raises `InvalidRequest` with the path of the wrong field: a label that is missing, malformed or given twice, two
    addresses at once, an address that is no HTTP URL, headers that cannot be sent.
    """
    found: dict[str, McpServer] = {}
    for tool in _tools(request):
        if tool.kind != "mcp":
            continue
        body = read(_mcp, tool.raw, tool.path)
        not_yet.check(body, not_yet.MCP_TOOL, f"{tool.path}.")
        if body.server_label in found:
            raise wrong(f"{tool.path}.server_label", f"there is already a server labelled '{body.server_label}'.")
        found[body.server_label] = _server(body, tool.path)
    return tuple(found.values())


def is_object(raw: Raw) -> bool:
    """Whether the JSON is an object."""
    return bytes(raw).lstrip()[:1] == b"{"


def _tools(request: CreateResponse) -> Iterator[_Tool]:
    for index, raw in enumerate(request.tools or ()):
        path = f"tools[{index}]"
        kind = read(_head, raw, path).type
        if kind is None:
            raise absent(f"{path}.type")
        if kind not in not_yet.TOOLS_BUILT:
            raise not_yet.refuse(f"{path}.type", f"Tools of type '{kind}' are not among function and mcp.")
        yield _Tool(path, kind, raw)


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
        # Anything else is refused above, until there is a way to ask.
        require_approval=NEVER_ASK,
    )


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
