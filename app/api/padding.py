"""Padding of deltas, so that whoever can only see how long they are does not learn how long their words are.

A request says whether it wants that, and the operator where it does not. OpenAI pads unless told not to; here most
clients are on the same network, and a padded stream is up to twice as long. Padding is put on when an event is sent;
what is stored has none.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_urlsafe

import msgspec

from app.dialects.openai_responses.encode import Event
from app.dialects.openai_responses.wire import StreamOptions

STEP = 64
_AROUND = len(b',"obfuscation":""')


def _letters(count: int) -> str:
    return token_urlsafe(count)[:count]


def is_wanted(options: StreamOptions | None, *, usual: bool) -> bool:
    """Whether a stream is to be padded."""
    asked = None if options is None else options.include_obfuscation
    return usual if asked is None else asked


def pad(event: Event, letters: Callable[[int], str] = _letters) -> Event:
    """A delta whose length is a multiple of `STEP` bytes, by a field `obfuscation` of at least one of `letters`; any
    other event as it is."""
    if not event.type.endswith(".delta"):
        return event
    data = event.data
    count = STEP - (len(data) + _AROUND) % STEP
    return msgspec.structs.replace(event, data=b'%b,"obfuscation":"%b"}' % (data[:-1], letters(count).encode()))
