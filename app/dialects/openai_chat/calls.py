"""Tool calls put together from their pieces, one told at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from app.dialects.openai_chat.custom import BEGIN, END, inside
from app.dialects.openai_chat.faults import EngineFault
from app.dialects.openai_chat.wire import CallPiece
from app.turn.events import CallDelta, ItemDone, TurnEvent
from app.turn.items import ToolCall

_MAX_ID = 64  # the API's limit for a call_id

_object = msgspec.json.Decoder(dict[str, Raw])


class CallBook:
    """The calls of one turn. `any` says whether there are some, `open` whether one is not told to its end."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.any = False
        self._new_id = new_id
        self._ids: set[str] = set()
        self._at_index: dict[int, _Call] = {}
        self._open: list[_Call] = []  # the first one is being told

    @property
    def open(self) -> bool:
        return bool(self._open)

    def add(self, pieces: Sequence[CallPiece]) -> list[TurnEvent]:
        """Take the pieces of one chunk. Raises `EngineFault` for more arguments of a call that is over."""
        for position, piece in enumerate(pieces):
            name, arguments = _said(piece)
            identity = "" if piece.id is None else str(piece.id)
            index = position if piece.index is None else piece.index
            call = self._at_index.get(index)
            if call is None or call.is_other(identity, name, arguments):
                call = self._at_index[index] = _Call()
                self._open.append(call)
                self.any = True
            if piece.custom is not None and not call.custom:
                call.begin_text()
            call.take(identity, name, arguments)
        return self._tell()

    def close(self) -> list[TurnEvent]:
        """Tell all calls to their end. Raises `EngineFault` for one without a name."""
        events: list[TurnEvent] = []
        while self._open:
            events += self._end(self._open.pop(0))
        return events

    def _tell(self) -> list[TurnEvent]:
        events: list[TurnEvent] = []
        while self._open:
            events += self._delta(self._open[0])
            if len(self._open) == 1 or not self._open[0].is_whole:
                break
            events += self._end(self._open.pop(0))
        return events

    def _delta(self, call: _Call, *, last: bool = False) -> list[TurnEvent]:
        fresh = call.fresh()
        if not fresh and (call.call_id or not last):
            return []
        if not call.name:
            if last:
                raise EngineFault("The worker's answer holds a tool call without a name.")
            return []
        call.told()
        if not call.call_id:
            call.call_id = self._identity(call.engine_id)
        return [CallDelta(call.call_id, call.name, fresh)]

    def _end(self, call: _Call) -> list[TurnEvent]:
        call.close()
        events = self._delta(call, last=True)
        call.over = True
        return [*events, ItemDone(ToolCall(call.call_id, call.name, call.arguments))]

    def _identity(self, given: str) -> str:
        identity = given if given and len(given) <= _MAX_ID and given not in self._ids else self._new_id()
        self._ids.add(identity)
        return identity


class _Call:
    """One call as far as it is known. `call_id` is set once it is announced. What is said of a `custom` tool's call is
    the inside of its arguments."""

    def __init__(self) -> None:
        self.engine_id = ""
        self.call_id = ""
        self.name = ""
        self.over = False
        self.custom = False
        self._pieces: list[str] = []
        self._told = 0
        self._whole: tuple[int, bool] = (0, False)

    def take(self, identity: str, name: str, arguments: str) -> None:
        """Add a piece. Raises `EngineFault` when the call is over."""
        if self.over and arguments.strip():
            raise EngineFault("The worker's answer goes on with a tool call that was over.")
        self.engine_id = self.engine_id or identity
        if name and len(self._pieces) == self.custom and name != self.name:
            # Some engines repeat the name in each piece, others cut it.
            self.name += name
        if arguments:
            self._pieces.append(arguments)

    def begin_text(self) -> None:
        """It is a custom tool's: its arguments are a text from here on."""
        self.custom = True
        self._pieces.append(BEGIN)

    def close(self) -> None:
        """No more is said of it."""
        if self.custom:
            self._pieces.append(END)

    def is_other(self, identity: str, name: str, arguments: str) -> bool:
        """Whether a piece that has this call's index begins another call: some engines number all calls 0, or none."""
        if not name:
            return False
        if identity and self.engine_id:
            return identity != self.engine_id
        if not self._pieces or not arguments.strip():
            return False
        return name != self.name or self.is_whole

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are a JSON object by now."""
        if self._whole[0] != len(self._pieces):
            self._whole = (len(self._pieces), _is_object(self.arguments))
        return self._whole[1]

    def fresh(self) -> str:
        """The arguments that have not been told."""
        return "".join(self._pieces[self._told :])

    def told(self) -> None:
        """All arguments so far have been told."""
        self._told = len(self._pieces)


def _is_object(text: str) -> bool:
    try:
        _object.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True


def _said(piece: CallPiece) -> tuple[str, str]:
    """The name and the arguments in a piece of a call."""
    if piece.custom is not None:
        return piece.custom.name or "", inside(piece.custom.input or "")
    if piece.function is None:
        return "", ""
    return piece.function.name or "", _text(piece.function.arguments)


def _text(arguments: Any) -> str:
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
