"""The client the conformance suite drives: our executor, not the SDK's client. The last argument is the server's URL.

It does what the scenario expects of a client that uses tools: list them, and call each with arguments its schema asks
for. Exits 0 unless something of ours breaks.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from app.mcp.executor import McpExecutor
from app.mcp.settings import McpSettings
from app.turn.events import CallTool
from app.turn.request import NEVER_ASK, McpServer


def arguments(schema: dict[str, Any], context: dict[str, Any], tool: str) -> dict[str, Any]:
    """What the scenario gives, or something of the right type for everything that is required."""
    for given in context.get("toolCalls", []):
        if given.get("name") == tool:
            return given.get("arguments", {})
    samples = {"string": "text", "number": 2, "integer": 2, "boolean": True, "array": [], "object": {}}
    wanted = schema.get("properties", {})
    return {name: samples.get(wanted.get(name, {}).get("type"), "text") for name in schema.get("required", wanted)}


async def main(url: str) -> None:
    """List and call."""
    context = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
    executor = McpExecutor(McpSettings(allow_loopback=True))
    try:
        server = McpServer(label="suite", url=url, require_approval=NEVER_ASK)
        async with executor.open("conformance", [server], None) as tools:
            listed = await tools.list_tools("suite")
            schemas = [json.loads(bytes(spec.parameters)) for spec in listed.tools]
            for spec, schema in zip(listed.tools, schemas, strict=True):
                given = arguments(schema, context, spec.tool or spec.name)
                if "schema" in given:
                    # The scenario wants to see another tool's schema as we keep it.
                    given["schema"] = next(each for each in schemas if "$schema" in each)
                result = await tools.call(CallTool(spec.name, "suite", spec.tool or spec.name, json.dumps(given)))
                sys.stderr.write(f"{spec.name}: {result.error or 'ok'}\n")
    finally:
        await executor.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[-1]))
