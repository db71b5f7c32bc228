"""Garbage for every endpoint: requests that are well-formed but for one thing, and bodies that are nothing at all.

What can be asked is read from the API's own description, so that an endpoint that is added is spoiled, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

Json = dict[str, Any]

DEEP = "[" * 5_000 + "]" * 5_000
BODIES = (
    *(b"", b" ", b"{", b"nul", b"[]", b"null", b"7", b'"x"', b"{}{}", b"NaN", b'{"model":NaN}', b"\xef\xbb\xbf{}"),
    *(b"\xff\xfe{}", b'{"model":"\xff"}', b'{"\xc3\x28":1}', b'{"\\ud800":1}'),
    *(DEEP.encode(), b'{"model":' * 5_000 + b"1" + b"}" * 5_000, b"[" * 100_000),
)
KINDS = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "")
# What stands where a field's value should be, as JSON.
VALUES = (
    *("null", "true", "-1", "1.5", "1" + "0" * 30, '""', '"\\u0000"', "[]", "{}", "[null]", "[[]]", "[{}]"),
    *('[{"type":null}]', '[{"type":""}]', '{"type":"\\u0000"}', '[{"type":"input_text"}]', DEEP),
)
# The same where much is spoiled.
FEW = ("null", "-1", "1" + "0" * 30, '""', '"\\u0000"', "[{}]", '{"type":"\\u0000"}', '[{"type":""}]')
NUMBERS = ("", "-1", "1e9", str(2**31), str(2**63), str(-(2**63) - 1), "9" * 30, "nan", "null")
QUERIES = (*NUMBERS, "%00", "a%00b", "%FF", "%ED%A0%80", "[]", "a" * 3000)
NAMES = ("%00", "resp_%00", "%FF", "%ED%A0%80", "..%2f..", "a" * 3000, "%0d%0aX:%20y", "'--", "%F0%9F%90%91")

CALL = {"call_id": "call_1", "status": "completed"}
MCP = {"server_label": "demo", "name": "add", "arguments": "{}"}
# One of each kind of item that a client may send by itself, with the answers that calls need.
ITEMS: tuple[tuple[Json, ...], ...] = (
    ({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}], "phase": "commentary"},),
    (
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}],
        },
    ),
    ({"type": "message", "role": "user", "content": [{"type": "input_file", "file_data": "AA==", "filename": "x"}]},),
    (
        {"type": "function_call", **CALL, "name": "f", "arguments": "{}", "namespace": "n"},
        {"type": "function_call_output", **CALL, "output": [{"type": "input_text", "text": "x"}]},
    ),
    (
        {"type": "custom_tool_call", **CALL, "name": "f", "input": "x", "namespace": "n"},
        {"type": "custom_tool_call_output", **CALL, "output": "x"},
    ),
    (
        {"type": "shell_call", **CALL, "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", **CALL, "output": [{"stdout": "", "outcome": {"type": "exit", "exit_code": 0}}]},
    ),
    (
        {"type": "local_shell_call", "id": "lsh_1", **CALL, "action": {"type": "exec", "command": ["ls"], "env": {}}},
        {"type": "local_shell_call_output", **CALL, "output": "x"},
    ),
    (
        {"type": "apply_patch_call", **CALL, "operation": {"type": "delete_file", "path": "x"}},
        {"type": "apply_patch_call_output", **CALL, "output": "x"},
    ),
    (
        {"type": "computer_call", **CALL, "action": {"type": "screenshot"}, "pending_safety_checks": []},
        {"type": "computer_call_output", **CALL, "output": {"type": "computer_screenshot", "image_url": "data:,"}},
    ),
    (
        {"type": "tool_search_call", **CALL, "execution": "client", "arguments": {}},
        {"type": "tool_search_output", **CALL, "execution": "client", "tools": []},
    ),
    ({"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "f"}]},),
    ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}], "content": []},),
    ({"type": "mcp_list_tools", "server_label": "demo", "tools": [{"name": "add", "input_schema": {}}]},),
    (
        {
            "type": "mcp_call",
            "id": "mcp_1",
            **MCP,
            "output": "x",
            "status": "completed",
            "model_call_id": "c",
            "output_parts": [{"type": "input_text", "text": "x"}],
        },
    ),
    ({"type": "mcp_approval_request", "id": "mcpr_1", **MCP},),
    ({"type": "web_search_call", "id": "ws_1", "status": "completed", "arguments": "{}", "output": "x"},),
    ({"type": "configuration_update", "reasoning": {"effort": "low"}, "text": {"verbosity": "low"}},),
)
TOOLS: tuple[Json, ...] = (
    {"type": "function", "name": "f", "description": "x", "parameters": {"type": "object"}, "strict": True},
    {"type": "custom", "name": "f", "format": {"type": "grammar", "syntax": "regex", "definition": "x+"}},
    {"type": "namespace", "name": "n", "description": "x", "tools": [{"type": "function", "name": "f"}]},
    {"type": "mcp", "server_label": "demo", "allowed_tools": ["add"], "require_approval": "never", "headers": {}},
    {"type": "tool_search", "execution": "client", "parameters": {"type": "object"}},
    {"type": "shell", "environment": {"type": "local"}},
)


# Fields of a request that have fields of their own.
SETTINGS: dict[str, Json] = {
    "text": {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}}},
    "reasoning": {"reasoning": {"effort": "low", "summary": "auto"}},
    "tool_choice": {
        "tools": [{"type": "function", "name": "f"}],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    },
    "context_management": {"context_management": [{"type": "compaction", "compact_threshold": 1000}]},
    "stream_options": {"stream_options": {"include_obfuscation": False}},
    "metadata": {"metadata": {"a": "b"}},
    "include": {"include": ["reasoning.encrypted_content"]},
    "prompt_cache_options": {"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}},
    "expires_after": {"expires_after": {"anchor": "created_at", "seconds": 3600}},
    "stop": {"stop": ["x"]},
}
RULES: Json = {
    "default": "ask",
    "trusted": True,
    "tools": {"add": {"decision": "allow", "alias": "plus", "defaults": {"a": 1}, "timeout_secs": 5}},
    "allowed_tools": ["add"],
}
ADMINISTERED: tuple[tuple[str, str, Json], ...] = (
    ("POST", "/admin/v1/mcp/servers", {"label": "x", "config": {"url": "https://a.example", "rules": RULES}}),
    ("PUT", "/admin/v1/mcp/policy", {"server_urls": "deny", "keep_arguments": True}),
    ("PUT", "/admin/v1/mcp/servers/demo/credentials/shared", {"kind": "headers", "headers": {"x-a": "b"}}),
    ("PUT", "/routing/policy", {"policy": "random", "models": {"a": "random"}}),
    (
        "POST",
        "/v1/prompts",
        {
            "name": "x",
            "instructions": "{{a}}",
            "input": [{"role": "user", "content": [{"type": "input_text", "text": "{{b}}"}]}],
            "variables": {"a": "x", "b": "y"},
        },
    ),
    (
        "POST",
        "/v1/conversations",
        {"items": [{"role": "user", "content": "x"}], "metadata": {"a": "b"}},
    ),
    ("POST", "/v1/responses/compact", {"model": "simulated", "input": [{"role": "user", "content": "x"}]}),
)


class Spoiled(Struct, frozen=True):
    """A request with one thing wrong: `field` is the beginning of the path of what was spoiled, where it is a field."""

    method: str
    path: str
    content: bytes | None = None
    kind: str = "application/json"
    field: str | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path[:120]} {(self.content or b'')[:160]!r} ({self.kind})"


def urls(document: Json, named: Mapping[str, str]) -> Iterator[Spoiled]:
    """Every endpoint under names nothing can have, with parameters that make no sense, and with verbs it has not.
    `named` is something that is there, by the parameter of its path."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            body = b"{}" if "requestBody" in operation else None
            for parameter in re.findall(r"\{(\w+)\}", path):
                for name in NAMES:
                    yield Spoiled(method.upper(), _at(path, {**named, parameter: name}), body)
            if method == "delete":
                continue
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query":
                    for value in QUERIES:
                        yield Spoiled(method.upper(), f"{_at(path, named)}?{parameter['name']}={value}", body)
        for method in {"get", "post", "put", "patch", "delete"} - operations.keys():
            yield Spoiled(method.upper(), _at(path, dict.fromkeys(named, "nothing")))


def bodies(document: Json, named: Mapping[str, str]) -> Iterator[Spoiled]:
    """Every endpoint that reads a body, with what is none, what does not say it is one, and every field of it wrong."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "requestBody" not in operation:
                continue
            here = method.upper(), _at(path, named)
            yield from (Spoiled(*here, content) for content in BODIES)
            yield from (Spoiled(*here, b"{}", kind) for kind in KINDS)
            fields = _fields(operation["requestBody"]["content"]["application/json"]["schema"], document)
            least = {"model": '"simulated"', "input": '"x"'} if path.startswith("/v1/responses") else {}
            for field in fields:
                for value in VALUES:
                    said = {**{name: each for name, each in least.items() if name in fields}, field: value}
                    content = ",".join(f'"{name}":{each}' for name, each in said.items())
                    yield Spoiled(*here, f"{{{content}}}".encode(), field=field)


def asked(**fields: Any) -> Json:
    """A request for a response that is kept nowhere."""
    return {"model": "simulated", "store": False, "input": [{"role": "user", "content": "x"}], **fields}


def with_items(items: tuple[Json, ...]) -> Json:
    """A request with these items."""
    return asked(input=[{"role": "user", "content": "x"}, *items])


def items_and_tools() -> Iterator[Spoiled]:
    """Responses asked for with items, tools and settings of which one thing is wrong, however deep it stands."""
    for items in ITEMS:
        for index in range(1, 1 + len(items)):
            yield from _asking(with_items(items), "input", "input", index)
    for tool in TOOLS:
        yield from _asking(asked(tools=[tool]), "tools", "tools")
    for field, fields in SETTINGS.items():
        yield from _asking(asked(**fields), field, field)


def administered() -> Iterator[Spoiled]:
    """What administrators and other clients send, of which one thing is wrong, however deep it stands."""
    for method, path, whole in ADMINISTERED:
        for name in whole:
            yield from (Spoiled(method, path, content) for content in _spoilt(whole, (name,)))


def _asking(whole: Json, field: str, *at: str | int) -> Iterator[Spoiled]:
    return (Spoiled("POST", "/v1/responses", content, field=field) for content in _spoilt(whole, at))


def _spoilt(whole: Json, at: tuple[str | int, ...]) -> Iterator[bytes]:
    """The JSON with what is at `at`, and each part of it, replaced by everything it should not be."""
    for place in _places(_part(whole, at), at):
        for value in FEW:
            yield json.dumps(_with(whole, place, "?")).replace('"?"', value).encode()


def _places(part: Any, at: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    yield at
    inside = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for step, inner in inside:
        yield from _places(inner, (*at, step))


def _part(whole: Any, at: Any) -> Any:
    for step in at:
        whole = whole[step]
    return whole


def _with(whole: Any, at: Any, value: Any) -> Any:
    if not at:
        return value
    step, *rest = at
    if isinstance(whole, dict):
        return {**whole, step: _with(whole[step], rest, value)}
    return [*whole[:step], _with(whole[step], rest, value), *whole[step + 1 :]]


def _at(path: str, named: Mapping[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: named[found[1]], path)


def _fields(schema: Json, document: Json) -> list[str]:
    """The fields of a body; those of its first form where it has several."""
    while "properties" not in schema:
        reference = schema.get("$ref") or next(each["$ref"] for each in schema["anyOf"])
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    return list(schema["properties"])
