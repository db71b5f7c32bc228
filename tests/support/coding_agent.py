"""Requests as coding agents send them: large, streamed, not stored, their tools inside the input."""

from __future__ import annotations

from typing import Any

GRAMMAR = 'start: line+\nline: /.+/ "\\n"'
BULK = 60_000


def tools() -> dict[str, Any]:
    """The first item of the input: tools, although the request has none at its top."""
    run = {"type": "custom", "name": "exec", "description": "Run a script.", "format": grammar()}
    plan = {"type": "function", "name": "update_plan", "description": "Note the plan.", "parameters": plan_schema()}
    inner = {"type": "namespace", "name": "functions", "description": "What can be done here.", "tools": [run, plan]}
    return {"type": "additional_tools", "role": "developer", "tools": [inner]}


def grammar() -> dict[str, Any]:
    return {"type": "grammar", "syntax": "lark", "definition": GRAMMAR}


def plan_schema() -> dict[str, Any]:
    step = {"type": "object", "properties": {"step": {"type": "string"}}, "required": ["step"]}
    return {"type": "object", "properties": {"plan": {"type": "array", "items": step}}, "required": ["plan"]}


def rules() -> dict[str, Any]:
    """A developer message that makes the request as large as real ones are."""
    line = "Prefer small steps, say what you did, and run the tests before you say that they pass.\n"
    return message("developer", line * (BULK // len(line)))


def message(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}


def request(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The body of a request with these items."""
    return {
        "model": "simulated",
        "input": list(items),
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "medium", "summary": "auto"},
        "prompt_cache_key": "0199-flock",
        "client_metadata": {"installation": "a-meadow"},
        "text": {"verbosity": "low"},
        **more,
    }
