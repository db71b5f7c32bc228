"""A summary in place of a conversation: what stays beside it, in the run that made it and in every later one."""

from __future__ import annotations

from collections.abc import Sequence

from app.turn.items import Item, Message, Text

SUMMARY = "Summary of the conversation before this point:\n\n"


def summarised(items: Sequence[Item], summary: str) -> tuple[Item, ...]:
    """The context once `summary` stands for it: what people said stays, everything else is in the summary."""
    return (*spoken(items), Message("user", (Text(SUMMARY + summary),)))


def spoken(items: Sequence[Item]) -> tuple[Item, ...]:
    """The messages that are not the model's own, and no older summaries."""
    return tuple(item for item in items if isinstance(item, Message) and item.role != "assistant" and not _is_old(item))


def _is_old(message: Message) -> bool:
    return message.text.startswith(SUMMARY)
