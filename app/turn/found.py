"""What the model reads when a search for tools has found some: the same text in the run that searched and later."""

from __future__ import annotations

from collections.abc import Sequence

from app.turn.items import ToolSpec

NOTHING_FOUND = "No tool fits. Search again with other words, or answer without."


def found_text(tools: Sequence[ToolSpec]) -> str:
    """The tools by the names the model will call them, one a line."""
    if not tools:
        return NOTHING_FOUND
    lines = [f"- {tool.name}: {_first_line(tool.description)}".rstrip(": ") for tool in tools]
    return "\n".join(["These tools can be called now:", *lines])


def _first_line(description: str | None) -> str:
    return (description or "").strip().partition("\n")[0][:200]
