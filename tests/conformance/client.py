"""The client the conformance suite drives: our executor, not the SDK's client. The last argument is the server's URL.

It does what the scenario expects of a client that uses tools: list them, call each with arguments its schema asks for,
and agree to whatever a tool asks the user, with what its form says by itself. Exits 0 unless something of ours breaks.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from msgspec import structs

from app.mcp.executor import McpExecutor
from app.mcp.rules import ServerRules
from app.mcp.settings import McpSettings, OperatorServer
from app.responses.eliciting import Asking
from app.turn.events import Answer, CallTool, Reply
from app.turn.request import NEVER_ASK, McpServer


def arguments(schema: dict[str, Any], context: dict[str, Any], tool: str) -> dict[str, Any]:
    """What the scenario gives, or something of the right type for everything that is required."""
    for given in context.get("toolCalls", []):
        if given.get("name") == tool:
            return given.get("arguments", {})
    samples = {"string": "text", "number": 2, "integer": 2, "boolean": True, "array": [], "object": {}}
    wanted = schema.get("properties", {})
    return {name: samples.get(wanted.get(name, {}).get("type"), "text") for name in schema.get("required", wanted)}


def agreed(asked: Asking) -> Reply:
    """A user who agrees to everything, and leaves forms as they come."""
    answers: list[Answer] = []
    for question in asked.questions:
        fields = json.loads(question.schema or "{}").get("properties", {})
        content = {name: field["default"] for name, field in fields.items() if "default" in field}
        samples = {"string": "text", "number": 2, "integer": 2, "boolean": True}
        needed = json.loads(question.schema or "{}").get("required", [])
        content |= {name: samples.get(fields[name].get("type"), "text") for name in needed if name not in content}
        answers.append(Answer("accept", json.dumps(content)))
    return Reply("mcpe_1", asked.state, tuple(answers))


async def main(url: str) -> None:
    """List and call."""
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    suite = OperatorServer(label="suite", url=url, rules=ServerRules(pinned=False, elicitation=True))
    executor = McpExecutor(McpSettings(allow_loopback=True, servers=(suite,)))
    try:
        server = McpServer(label="suite", require_approval=NEVER_ASK)
        async with executor.open("conformance", [server], None) as tools:
            listed = await tools.list_tools("suite")
            schemas = [json.loads(bytes(spec.parameters)) for spec in listed.tools]
            for spec, schema in zip(listed.tools, schemas, strict=True):
                given = arguments(schema, context, spec.tool or spec.name)
                if "schema" in given:
                    # The scenario wants to see another tool's schema as we keep it.
                    given["schema"] = next(each for each in schemas if "$schema" in each)
                call = CallTool(spec.name, "suite", spec.tool or spec.name, json.dumps(given))
                result = await tools.call(call)
                while isinstance(result, Asking):
                    result = await tools.call(structs.replace(call, reply=agreed(result)))
                sys.stderr.write(f"{spec.name}: {result.error or 'ok'}\n")
    finally:
        await executor.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[-1]))
