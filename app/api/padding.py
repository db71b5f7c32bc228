"""Padding of deltas, so that whoever can only see how long they are does not learn how long their words are.

Off unless asked for: most clients are on the same network, and a padded stream is up to twice as long. It is put
on when an event is sent; what is stored, and replayed, has none.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_urlsafe

import msgspec

from app.dialects.openai_responses.encode import Event

STEP = 64
_AROUND = len(b',"obfuscation":""')


def _letters(count: int) -> str:
    return token_urlsafe(count)[:count]


def pad(event: Event, letters: Callable[[int], str] = _letters) -> Event:
    """A delta whose length is a multiple of `STEP` bytes, by a field `obfuscation` of at least one of `letters`; any
    other event as it is."""
    if not event.type.endswith(".delta"):
        return event
    data = event.data
    count = STEP - (len(data) + _AROUND) % STEP
    return msgspec.structs.replace(event, data=b'%b,"obfuscation":"%b"}' % (data[:-1], letters(count).encode()))
