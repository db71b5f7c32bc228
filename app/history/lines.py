"""Where conversations go on: the seam between them and whoever writes items into the tree."""

from __future__ import annotations

from sqlalchemy import Connection

from app.history import conversation_statements as sql
from app.history.errors import conversation_locked, no_conversation, storable
from app.history.run_statements import CONVERSATION


def tip(connection: Connection, tenant: str, conversation_id: str, version: int | None = None) -> tuple[str, int, bool]:
    """The conversation's chain and end, held until the transaction ends, and whether the chain goes on from there.

    Raises `NotFound`, and `conversation_locked` when the conversation is not the `version` somebody builds on.
    """
    if not storable(conversation_id):
        raise no_conversation(conversation_id)
    found = connection.execute(sql.TIP, key(tenant, conversation_id)).one_or_none()
    if found is None:
        raise no_conversation(conversation_id)
    chain_id, end, current, overtaken = found
    if version is not None and current != version:
        raise conversation_locked()
    return chain_id, end, overtaken


def free_tip(connection: Connection, tenant: str, conversation_id: str) -> tuple[str, int, bool]:
    """`tip`, for who changes the conversation outside of a response. Raises what it raises, and `conversation_locked`
    while a response is made in the conversation."""
    found = tip(connection, tenant, conversation_id)
    # A run that begins now waits for the tip, too, and then sees that this is not its version any more.
    held = {"tenant": tenant, "conversation": conversation_id}
    if connection.execute(CONVERSATION, held).first() is not None:
        raise conversation_locked()
    return found


def move(connection: Connection, tenant: str, conversation_id: str, to: tuple[str, int]) -> None:
    """The conversation, whose tip is held, now ends at that chain and position."""
    chain_id, position = to
    target = {"key_tenant": tenant, "key_id": conversation_id, "to_chain": chain_id, "to_position": position}
    connection.execute(sql.MOVE, target)


def key(tenant: str, conversation_id: str) -> dict[str, str]:
    """The parameters that name a conversation."""
    return {"tenant": tenant, "response": conversation_id}
