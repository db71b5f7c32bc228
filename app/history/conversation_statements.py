"""The statements of conversations, made once. Each has the tenant in every key it uses; :response is a conversation's
id where a statement is made from those of `statements`."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BindParameter, bindparam, delete, exists, insert, select, update
from sqlalchemy.sql import Insert, Select, Update

from app.history import statements
from app.history.desk_tables import conversations
from app.history.tables import items

_TENANT: Final[BindParameter[str]] = bindparam("tenant")
_ID: Final[BindParameter[str]] = bindparam("response")
_MINE: Final = (conversations.c.tenant == _TENANT, conversations.c.id == _ID)

# As `statements.WINDOW` and `statements.CURSOR`, of a conversation's items.
WINDOW: Final = statements.window(conversations)
# The same, and whose an item is.
OWNED: Final = statements.window(conversations, items.c.subject)
CURSOR: Final = statements.cursor(conversations, conversations.c.end_position)

CONVERSATION: Final[Select[Any]] = select(conversations).where(*_MINE)

# (chain_id, end_position, version, overtaken): where a conversation ends, and whether its chain already goes on from
# there. Holding the row until the commit keeps others from adding to the conversation or deleting it.
TIP: Final[Select[Any, Any, Any, bool]] = (
    select(
        conversations.c.chain_id,
        conversations.c.end_position,
        conversations.c.version,
        exists().where(
            items.c.tenant == conversations.c.tenant,
            items.c.chain_id == conversations.c.chain_id,
            items.c.position == conversations.c.end_position,
        ),
    )
    .where(*_MINE)
    .with_for_update(of=conversations)
)

ADD: Final[Insert] = insert(conversations)

_BY_KEY: Final = (conversations.c.tenant == bindparam("key_tenant"), conversations.c.id == bindparam("key_id"))

MOVE: Final[Update] = (
    update(conversations)
    .where(*_BY_KEY)
    .values(
        chain_id=bindparam("to_chain"),
        end_position=bindparam("to_position"),
        version=conversations.c.version + 1,
    )
)

SET_METADATA: Final = (
    update(conversations)
    .where(*_BY_KEY)
    .values(metadata=bindparam("to_metadata"))
    .returning(conversations.c.created_at, conversations.c.expires_at)
)

FORGET: Final = delete(conversations).where(*_MINE)
