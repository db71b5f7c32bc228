"""What can go wrong, in our words. Foreign exceptions of the database become ours here and nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from app.turn.errors import Conflict, InvalidRequest, NotFound, Unavailable

_log = logging.getLogger(__name__)

# PostgreSQL refuses index entries over about 2700 bytes, and the tenant is part of each.
MAX_ID_BYTES: Final = 1024


@contextmanager
def available() -> Generator[None]:
    """Raise `Unavailable(code="history_unavailable")` for whatever the database or the way to it does wrong."""
    try:
        yield
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        _log.warning("history is unavailable: %s", _in_a_line(error))
        raise unavailable() from error


def unavailable() -> Unavailable:
    """History cannot be read or written now."""
    message = "The server cannot reach its history. Nothing was stored; please retry."
    return Unavailable(message, code="history_unavailable", retry_after=1)


def not_found(response_id: str) -> NotFound:
    """There is no such response, for this tenant."""
    return NotFound(f"Response with id '{response_id}' not found.")


def no_conversation(conversation_id: str) -> NotFound:
    """There is no such conversation, for this tenant."""
    return NotFound(f"Conversation with id '{conversation_id}' not found.", code="conversation_not_found")


def no_item(item_id: str) -> NotFound:
    """The conversation has no such item."""
    return NotFound(f"Item with id '{item_id}' not found.")


def conversation_locked() -> InvalidRequest:
    """Somebody else is at work on the conversation, or was in the meantime."""
    message = "Another process is currently operating on this conversation. Please retry in a few seconds."
    return InvalidRequest(message, param="conversation", code="conversation_locked", retry_after=1)


def no_cursor(after: str) -> InvalidRequest:
    """`after` names none of the items that are paged through."""
    return InvalidRequest(f"No item with id '{after}'.", param="after")


def id_taken(response_id: str) -> Conflict:
    """The id belongs to another response of the tenant."""
    return Conflict(f"A response with id '{response_id}' already exists.")


def check_item_ids(ids: Iterator[str]) -> None:
    """Raise `InvalidRequest(param="input")` for an item id that no database can hold."""
    for each in ids:
        if not storable(each):
            message = f"An item's id must be at most {MAX_ID_BYTES} bytes of Unicode without NUL characters."
            raise InvalidRequest(message, param="input")


def storable(value: str) -> bool:
    """Whether `value` can be a text key in every database: NUL, lone surrogates and very long ones cannot."""
    try:
        return "\x00" not in value and len(value.encode()) <= MAX_ID_BYTES
    except UnicodeEncodeError:
        return False


def _in_a_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
