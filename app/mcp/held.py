"""Calls that a server holds open while it asks the user: how the older protocol does it.

The server's question comes while the call waits for its result, and the answer goes back within it. So such a call has
a task of its own, which outlives the response that made it, waits for the answer in this process and no other, and is
bounded in time and number. A call that nobody goes on with in time is cancelled.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from mcp import types
from mcp.client.session import ClientRequestContext
from msgspec import Struct

from app.mcp.failure import CLOSED, McpFailure, broken
from app.mcp.questions import question, response
from app.turn.events import Answer
from app.turn.items import Question

T = TypeVar("T")


class Talk:
    """What a server and its user say to each other within one call."""

    def __init__(self) -> None:
        self._open: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._asked = asyncio.Event()
        self._answered = asyncio.Event()

    async def ask(self, asked: Question) -> Answer:
        """The user's answer, when there is one."""
        waiting = (asked, asyncio.get_running_loop().create_future())
        self._open.append(waiting)
        self._answered.clear()
        self._asked.set()
        try:
            return await waiting[1]
        finally:
            if waiting in self._open:
                self._open.remove(waiting)

    async def asked(self) -> tuple[Question, ...]:
        """What the server asks, when it does."""
        await self._asked.wait()
        return tuple(asked for asked, _ in self._open)

    async def answered(self) -> None:
        """Return when nothing is asked any more."""
        await self._answered.wait()

    def answer(self, answers: tuple[Answer, ...]) -> None:
        """The answers to what was asked, in that order."""
        told, self._open = self._open[: len(answers)], self._open[len(answers) :]
        if not self._open:
            self._asked.clear()
            self._answered.set()
        for (_, waiting), answer in zip(told, answers, strict=False):
            if not waiting.done():
                waiting.set_result(answer)


_TALK: ContextVar[Talk | None] = ContextVar("talk", default=None)


class Talks:
    """The calls of one connection within which its server may ask."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._open: set[Talk] = set()

    def begin(self, talk: Talk) -> None:
        """What the server asks in answer to this task's requests belongs to `talk`."""
        self._open.add(talk)
        _TALK.set(talk)

    def end(self, talk: Talk) -> None:
        """The call is over."""
        self._open.discard(talk)
        _TALK.set(None)

    async def heard(
        self,
        context: ClientRequestContext,  # noqa: ARG002 - it knows the question's id, and not the call's
        params: types.ElicitRequestParams,
    ) -> types.ElicitResult | types.ErrorData:
        """Answer the server's question by asking the user (the SDK's `ElicitationFnT`)."""
        talk = self._talk()
        if talk is None:
            return types.ErrorData(code=types.INVALID_REQUEST, message="Which call asks the user cannot be told")
        try:
            asked = question(self._label, params)
        except McpFailure as failure:
            return types.ErrorData(code=types.INVALID_PARAMS, message=failure.error.message)
        return response(await talk.ask(asked))

    def _talk(self) -> Talk | None:
        # Over HTTP a question comes in the stream that answers the call. Pipes do not say which call asks: there has to
        # be only one.
        mine = _TALK.get()
        if mine is not None and mine in self._open:
            return mine
        return next(iter(self._open)) if len(self._open) == 1 else None


class Held(Generic[T]):
    """A call on its way, in a task of its own."""

    def __init__(self, call: Coroutine[Any, Any, T], talk: Talk) -> None:
        self.talk = talk
        self._task = asyncio.create_task(call)
        # Nobody may be there any more to hear why it failed.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def next(self) -> T | tuple[Question, ...]:
        """Its result, or what is asked before there is one. Raises what the call does; cancelled, it is, too."""
        asking = asyncio.create_task(self.talk.asked())
        try:
            await asyncio.wait({self._task, asking}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.drop()
            raise
        finally:
            asking.cancel()
        return self._task.result() if self._task.done() else asking.result()

    async def drop(self) -> None:
        """Give it up; the server is told."""
        self._task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._task


class _Kept(Struct):
    whose: tuple[str, str]
    held: Held[Any]
    timer: asyncio.TimerHandle


class Holding:
    """The calls of one process that wait for answers: at most `most` of a tenant, each for at most `secs` seconds.
    Whose they are is said by tenant and principal."""

    def __init__(self, most: int, secs: float) -> None:
        self._most = most
        self.secs = secs
        self._kept: dict[str, _Kept] = {}
        self._dropping: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._kept)

    async def keep(self, whose: tuple[str, str], held: Held[Any]) -> str:
        """Hold the call for whoever brings the answers; by what it is found again. Raises `McpFailure` for one too
        many, which is given up."""
        if sum(kept.whose[0] == whose[0] for kept in self._kept.values()) >= self._most:
            await held.drop()
            raise broken("Too many calls wait for their users' answers; this one was given up.", CLOSED)
        reference = secrets.token_hex(16)
        timer = asyncio.get_running_loop().call_later(self.secs, self._too_late, reference)
        self._kept[reference] = _Kept(whose, held, timer)
        return reference

    def take(self, whose: tuple[str, str], reference: str) -> Held[Any] | None:
        """The call, which nobody gets a second time; None when it is not here (any more)."""
        kept = self._kept.get(reference)
        if kept is None or kept.whose != whose:
            return None
        del self._kept[reference]
        kept.timer.cancel()
        return kept.held

    async def close(self) -> None:
        """Give all of them up."""
        for reference in list(self._kept):
            self._kept[reference].timer.cancel()
            self._too_late(reference)
        await asyncio.gather(*self._dropping, return_exceptions=True)

    def _too_late(self, reference: str) -> None:
        task = asyncio.get_running_loop().create_task(self._kept.pop(reference).held.drop())
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)
