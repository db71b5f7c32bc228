"""`/v1/responses` as a WebSocket: requests come as frames, and every event of every response goes out as one.

The connection has one reader and one task a busy lane. The reader never waits for a lane: a connection that is not read
does not hear that its client left. Whoever does not read what we send is cut off in the end; a frame too large, or one
that is no text as UTF-8 has it, ends the connection below us (1009, 1007).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from app.api.caller import Caller, caller_of, is_from_elsewhere
from app.api.errors import error_type
from app.api.padding import is_wanted, pad
from app.api.services import RunView, Services
from app.api.stream import TERMINAL
from app.dialects.openai_responses import frames, steering
from app.dialects.openai_responses.encode import Event
from app.responses.circumstances import Circumstances
from app.responses.lanes import Kept, Lanes
from app.responses.steering import GivenBack, Refused, Steering, Then, Waiting, Work, not_made
from app.turn.errors import GatewayError, InvalidRequest, Unavailable
from app.turn.items import StoredItem

_log = logging.getLogger(__name__)

# How long a client may keep us from sending.
SEND_SECS = 60.0

POLICY, GOING_AWAY, RESTART = 1008, 1001, 1012
INTERNAL = "The server had an error while processing your request. It has been logged."


class _Told(Struct, frozen=True):
    id: str


class _Created(Struct, frozen=True):
    response: _Told


class _Whole(Struct, frozen=True):
    output: list[msgspec.Raw]


class _Ended(Struct, frozen=True):
    response: _Whole


_created = msgspec.json.Decoder(_Created)
_ended = msgspec.json.Decoder(_Ended)


async def serve(services: Services, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one connection until it ends."""
    await receive()
    if is_from_elsewhere(scope):
        # A browser asks nobody before it lets a page connect to us.
        await send({"type": "websocket.close", "code": POLICY, "reason": "other origins may not connect"})
        return
    try:
        caller = caller_of(scope)
    except GatewayError as error:
        await send({"type": "websocket.close", "code": POLICY, "reason": error.message})
        return
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    connection = _Connection(services, caller, send)
    try:
        async with connection.open():
            await connection.read(receive)
    except (TimeoutError, OSError) as error:
        _log.info("a websocket ended: %s", error or "its client does not read")


class _Connection:
    """One connection: what it remembers, and its lanes."""

    def __init__(self, services: Services, caller: Caller, send: Send) -> None:
        self._services = services
        self._caller = caller
        self._send = send
        self._lanes: Lanes[frames.Create] = Lanes(services.max_body, services.socket_bounds)
        self._kept = Kept(services.socket_bounds)
        self._steering = Steering(services.max_body, services.socket_bounds)
        self._runs: dict[str, RunView] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        self._leaving: int | None = None
        self._told_to_leave = asyncio.Event()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """While it lasts. Afterwards nobody follows its responses any more: those that nobody could read are ended."""
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    # ── in ────────────────────────────────────────────────────────────────────

    async def read(self, receive: Receive) -> None:
        """Take frames until the client leaves, the time is up, or the server stops.

        Raises `TimeoutError` for a client that does not read, `OSError` for one that is gone.
        """
        aging = asyncio.create_task(asyncio.sleep(self._services.socket_secs))
        leaving = asyncio.create_task(self._until_leaving())
        reading = asyncio.ensure_future(receive())
        try:
            while True:
                waited: set[asyncio.Future[Any]] = {reading, leaving, self._broken}
                await asyncio.wait(
                    waited | ({aging} if self._leaving is None else set()), return_when="FIRST_COMPLETED"
                )
                if self._broken.done():
                    self._broken.result()
                if leaving.done():
                    leaving.result()
                    return
                if aging.done() and self._leaving is None:
                    await self._too_old()
                if reading.done():
                    message = cast("dict[str, Any]", reading.result())
                    if message["type"] != "websocket.receive":
                        return
                    await self._take(message.get("text"))
                    reading = asyncio.ensure_future(receive())
        finally:
            for task in (aging, leaving, reading):
                task.cancel()

    async def _take(self, text: str | None) -> None:
        if text is None:
            await self._refuse(InvalidRequest("Frames are JSON as text; this one is binary.", code="invalid_frame"))
            return
        try:
            frame = frames.decode_frame(text)
        except frames.Misfit as misfit:
            await self._refuse(misfit.error, misfit.lane)
            return
        if isinstance(frame, steering.Steer):
            await self._steer(frame)
            return
        try:
            self._check_open()
            at_once = self._lanes.admit(frame.lane, frame, frame.size)
        except GatewayError as error:
            await self._refuse(error, frame.lane)
            if self._leaving is not None:
                self._told_to_leave.set()
            return
        if at_once:
            self._idle.clear()
            task = asyncio.create_task(self._work(frame))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _check_open(self) -> None:
        if self._leaving is not None:
            raise _old_error(self._services.socket_secs)
        if self._services.status().draining:
            self._leaving = RESTART
            message = "The server is shutting down. Please connect again."
            raise Unavailable(message, code="server_shutting_down")

    async def _steer(self, steer: steering.Steer) -> None:
        lane = self._steering.lane(steer.previous_response_id)
        try:
            taken = self._steering.take(steer, lambda: self._services.ids.new("steer"))
        except Refused as refused:
            await self._say(steering.failed(steer, None, refused.fault, refused.error, lane))
            return
        await self._say(steering.accepted(steer, taken.id, lane))
        run = self._runs.get(steer.previous_response_id)
        if run is not None:
            run.steer()

    # ── lanes ─────────────────────────────────────────────────────────────────

    async def _work(self, frame: frames.Create) -> None:
        """Make the responses of one lane, until there is nothing left to do on it."""
        following: frames.Create | None = frame
        while following is not None:
            work: Work | None = self._steering.joined(following)
            while work is not None:
                work = await self._make(work)
            following = self._lanes.done(following.lane)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._idle.set()
        if not task.cancelled() and (fault := task.exception()) is not None and not self._broken.done():
            self._broken.set_exception(fault)

    async def _make(self, work: Work) -> Work | None:
        """Make a response; the one that follows it by itself."""
        previous = work.asked.request.previous_response_id
        begun = False
        try:
            run = await self._begin(work.asked, self._kept.context(previous))
            begun = True
            return await self._follow(run, work)
        except GatewayError as error:
            fault = error
        except (OSError, TimeoutError):
            raise
        except Exception:  # noqa: BLE001 - a fault of ours costs a request, not the connection and its other lanes
            _log.exception("a request on a websocket failed")
            fault = GatewayError(INTERNAL, code="internal_error")
        self._kept.forget(previous)
        if begun or not work.automatic:
            await self._refuse(fault, work.asked.lane)
        if not begun:
            await self._give_back(not_made(work, fault.message), work.asked.lane)
        return None

    async def _begin(self, frame: frames.Create, context: tuple[StoredItem, ...] | None) -> RunView:
        if context is not None and frame.request.store is not False:
            message = "What goes on from a response with 'store: false' cannot be stored; give 'store: false', too."
            raise InvalidRequest(message, param="store", code="invalid_value")
        caller = self._caller
        circumstances = Circumstances(context=context, generate=frame.generate, profile=caller.profile)
        return await self._services.responses.create(caller.tenant, frame.request, caller.principal, circumstances)

    async def _follow(self, run: RunView, work: Work) -> Work | None:
        """Send the response's events; the work that follows from its end."""
        frame, response_id, then = work.asked, "", None
        padded = is_wanted(frame.request.stream_options, usual=self._services.padded)
        last: Event | None = None
        try:
            async for batch in run.follow():
                for event in batch:
                    if event.type == "response.created":
                        response_id = _created.decode(event.data).response.id
                        self._steering.began(response_id, work)
                        self._runs[response_id] = run
                    elif event.type in TERMINAL:
                        then = self._over(run, frame, response_id, event)
                    await self._say(frames.event_frame(pad(event) if padded else event, frame.lane))
                    last = event
            if last is None or last.type not in TERMINAL:
                await _without_end(run)
        except BaseException as error:
            # Nobody hears it any more.
            run.detach()
            if isinstance(error, GatewayError):
                await self._give_back(self._steering.failed(response_id), frame.lane)
            raise
        finally:
            self._runs.pop(response_id, None)
        return await self._then(then, frame.lane)

    def _over(self, run: RunView, frame: frames.Create, response_id: str, end: Event) -> Then:
        """Remember the response before its client hears of the end, and goes on from it."""
        if end.type == "response.failed":
            self._kept.forget(frame.request.previous_response_id)
            return self._steering.failed(response_id)
        if frame.request.store is False:
            self._kept.keep(response_id, run.items())
        return self._steering.ended(response_id, lambda: _ended.decode(end.data).response.output)

    async def _then(self, then: Then, lane: str | None) -> Work | None:
        """Say what has become of what was said to a response; the work that brings it in by itself."""
        if isinstance(then, Work):
            return then
        if isinstance(then, Waiting):
            for each in then.said:
                await self._say(steering.pending(each.steer, each.id, then.required, lane))
        else:
            await self._give_back(then, lane)
        return None

    async def _give_back(self, back: GivenBack | None, lane: str | None) -> None:
        for each in () if back is None else back.said:
            assert back is not None
            await self._say(steering.failed(each.steer, each.id, back.fault, back.error, lane))

    # ── out ───────────────────────────────────────────────────────────────────

    async def _refuse(self, error: GatewayError, lane: str | None = None) -> None:
        if error.status >= 500:
            _log.warning("answered %d: %s", error.status, error.message, extra={"code": error.code})
        await self._say(frames.error_frame(error, error_type(error.status), lane))

    async def _say(self, text: str) -> None:
        async with asyncio.timeout(SEND_SECS), self._sending:
            await self._send({"type": "websocket.send", "bytes": None, "text": text})

    # ── the end ───────────────────────────────────────────────────────────────

    async def _too_old(self) -> None:
        self._leaving = GOING_AWAY
        await self._refuse(_old_error(self._services.socket_secs))
        self._told_to_leave.set()

    async def _until_leaving(self) -> None:
        """Close once what was begun is through, after the time is up or the server has begun to stop."""
        await self._told_to_leave.wait()
        await self._idle.wait()
        assert self._leaving is not None
        async with asyncio.timeout(SEND_SECS), self._sending:
            await self._send({"type": "websocket.close", "code": self._leaving, "reason": "please connect again"})


async def _without_end(run: RunView) -> None:
    """Nothing else would tell the client that no more is to come. Always raises a `GatewayError`."""
    await run.result()
    raise GatewayError("The response ended before it was complete.", code="response_ended")


def _old_error(seconds: float) -> GatewayError:
    message = f"Responses websocket connection limit reached ({seconds / 60:g} minutes). Create a new one to continue."
    return InvalidRequest(message, code="websocket_connection_limit_reached")
