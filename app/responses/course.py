"""The course of a response: where it is, what its conversation has come to, and what comes next.

This is what all phases share. It knows when the model is asked, what it is asked, and how a response ends; it is fed
nothing. What may be fed, and when, is in `machine.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import structs

from app.responses.calls import Budget, Rules, Turn
from app.responses.listing import Listings
from app.responses.promised import broken_promise
from app.responses.toolset import Toolset
from app.responses.window import Conversation, next_turn, to_summarise
from app.turn.errors import Failure
from app.turn.events import CallModel, Finish, OutEvent, Phase, Start
from app.turn.items import ToolSpec
from app.turn.request import TurnRequest
from app.turn.usage import Usage

Status: TypeAlias = Literal["completed", "incomplete", "failed", "cancelled"]

NO_TOKENS, STEERED = "max_output_tokens", "steered"
CUT: Mapping[str, str] = {"length": NO_TOKENS, "content_filter": "content_filter"}


class Course:
    """One response on its way. `turns` counts the model's turns from 1; `usage` is theirs together."""

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.usage: Usage = Usage()
        self.finish: Finish | None = None
        self._start: Start | None = None
        self._listings = Listings()
        self._tools: Toolset | None = None
        self._talk = Conversation()
        self._turn = Turn()
        self._budget = Budget(0)
        self.turns: int = 0
        self._steered = False

    @property
    def _begun(self) -> Start:
        assert self._start is not None
        return self._start

    def _owner(self, name: str) -> ToolSpec | None:
        return None if self._tools is None else self._tools.owner(name)

    def _answered(self) -> list[OutEvent]:
        """The model has said what it had to say."""
        fault = broken_promise(self._begun.request.format, self._turn.text)
        return self._finish("completed") if fault is None else self._finish("failed", failure=fault)

    def _sample(self) -> list[OutEvent]:
        assert self._tools is not None
        start, request, turn = self._begun, self._begun.request, self._next_turn()
        if self._steered or turn is None:
            return self._finish("incomplete", reason=STEERED if self._steered else NO_TOKENS)
        if start.window.compact_now or self._talk.is_full(start.window.compact_at):
            return self._summarise()
        self.turns += 1
        self.phase, self._turn = Phase.SAMPLING, Turn(Rules.of(start, self.turns), self._budget)
        choice = self._tools.choice(request.tool_choice, start.allowed, turn=self.turns, broke=self._budget.left == 0)
        return [CallModel(structs.replace(turn, tool_choice=choice))]

    def _summarise(self) -> list[OutEvent]:
        turn = self._next_turn()
        if turn is None:
            return self._finish("incomplete", reason=NO_TOKENS)
        self.phase, self._turn = Phase.COMPACTING, Turn()
        return [CallModel(to_summarise(turn))]

    def _next_turn(self) -> TurnRequest | None:
        """What the model is asked next; None when the response has no tokens left to say anything."""
        assert self._tools is not None
        return next_turn(self._begun.request, self._talk.items, self._tools.shown, self.usage)

    def _finish(self, status: Status, *, reason: str | None = None, failure: Failure | None = None) -> list[OutEvent]:
        self.phase, self.finish = Phase.DONE, Finish(status, self.usage, reason, failure)
        return [self.finish]
