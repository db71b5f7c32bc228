"""`/v1/responses` as a WebSocket: requests come as frames, and every event of every response goes out as one.

The connection has one reader and one task a busy lane. The reader never waits for a lane: a connection that is not read
does not hear that its client left. Whoever does not read what we send is cut off in the end; a frame too large, or one
that is no text as UTF-8 has it, ends the connection below us (1009, 1007).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
from litestar.types import Receive, Scope, Send
from msgspec import Struct

from app.api.caller import Caller, caller_of, is_from_elsewhere
from app.api.errors import error_type
from app.api.padding import pad
from app.api.services import RunView, Services
from app.api.stream import TERMINAL
from app.dialects.openai_responses import frames
from app.dialects.openai_responses.encode import Event
from app.responses.circumstances import Circumstances
from app.responses.lanes import Kept, Lanes, Made
from app.turn.errors import GatewayError, InvalidRequest, Unavailable
from app.turn.items import StoredItem

_log = logging.getLogger(__name__)

# How long a client may keep us from sending; what it may have asked to steer is remembered for so many responses.
SEND_SECS = 60.0
MADE = 128

POLICY, GOING_AWAY, RESTART = 1008, 1001, 1012
INTERNAL = "The server had an error while processing your request. It has been logged."


class _Told(Struct, frozen=True):
    id: str


class _Created(Struct, frozen=True):
    response: _Told


_created = msgspec.json.Decoder(_Created)


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
        self._made: OrderedDict[str, Made] = OrderedDict()
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
        if isinstance(frame, frames.Steer):
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

    async def _steer(self, steer: frames.Steer) -> None:
        made = self._made.get(steer.previous_response_id)
        fault: frames.SteerFault = "steering_not_supported"
        if made is None:
            fault = "response_not_found"
        elif not frames.is_steerable(steer.input):
            fault = "invalid_input"
        elif made.over:
            fault = "response_already_completed"
        await self._say(frames.steer_failed(steer, fault, made.lane if made is not None else None))

    # ── lanes ─────────────────────────────────────────────────────────────────

    async def _work(self, frame: frames.Create) -> None:
        """Make the responses of one lane, until there is nothing left to do on it."""
        following: frames.Create | None = frame
        while following is not None:
            await self._make(following)
            following = self._lanes.done(following.lane)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._idle.set()
        if not task.cancelled() and (fault := task.exception()) is not None and not self._broken.done():
            self._broken.set_exception(fault)

    async def _make(self, frame: frames.Create) -> None:
        previous = frame.request.previous_response_id
        try:
            made = await self._respond(frame, self._kept.context(previous))
        except GatewayError as error:
            self._kept.forget(previous)
            await self._refuse(error, frame.lane)
        except (OSError, TimeoutError):
            raise
        except Exception:  # noqa: BLE001 - a fault of ours costs a request, not the connection and its other lanes
            _log.exception("a request on a websocket failed")
            self._kept.forget(previous)
            await self._refuse(GatewayError(INTERNAL, code="internal_error"), frame.lane)
        else:
            if not made:
                self._kept.forget(previous)

    async def _respond(self, frame: frames.Create, context: tuple[StoredItem, ...] | None) -> bool:
        """Make the response and send its events; whether it came to a good end."""
        if context is not None and frame.request.store is not False:
            message = "What goes on from a response with 'store: false' cannot be stored; give 'store: false', too."
            raise InvalidRequest(message, param="store", code="invalid_value")
        caller = self._caller
        circumstances = Circumstances(context=context, generate=frame.generate, profile=caller.profile)
        run = await self._services.responses.create(caller.tenant, frame.request, caller.principal, circumstances)
        try:
            return await self._follow(run, frame)
        except BaseException:
            # Nobody hears it any more.
            run.detach()
            raise

    async def _follow(self, run: RunView, frame: frames.Create) -> bool:
        options = frame.request.stream_options
        padded = options is not None and options.include_obfuscation is True
        response_id, last = "", None
        async for batch in run.follow():
            for event in batch:
                if event.type == "response.created":
                    response_id = _created.decode(event.data).response.id
                    self._remember(response_id, Made(frame.lane))
                elif event.type in TERMINAL:
                    self._over(run, frame, response_id, event)
                await self._say(frames.event_frame(pad(event) if padded else event, frame.lane))
                last = event.type
        if last not in TERMINAL:
            # Nothing else would tell the client that no more is to come.
            await run.result()
            raise GatewayError("The response ended before it was complete.", code="response_ended")
        return last != "response.failed"

    def _over(self, run: RunView, frame: frames.Create, response_id: str, end: Event) -> None:
        """Remember the response before its client hears of the end, and goes on from it."""
        self._remember(response_id, Made(frame.lane, over=True))
        if frame.request.store is False and end.type != "response.failed":
            self._kept.keep(response_id, run.items())

    def _remember(self, response_id: str, made: Made) -> None:
        self._made[response_id] = made
        if len(self._made) > MADE:
            self._made.popitem(last=False)

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


def _old_error(seconds: float) -> GatewayError:
    message = f"Responses websocket connection limit reached ({seconds / 60:g} minutes). Create a new one to continue."
    return InvalidRequest(message, code="websocket_connection_limit_reached")
