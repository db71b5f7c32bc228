"""Requests that may be repeated: a client that never heard the answer asks again with the same `Idempotency-Key`, and
gets the response that was begun for it the first time, instead of a second one.

The key is held before the response begins, and stands for it once it has; if it never begins, the key is free again.
A server that dies in between leaves a held key behind, which is free after a while. Whoever comes while a key is held
waits for one or the other.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from msgspec import Struct, structs

from app.dialects.openai_responses.encode import Event
from app.dialects.openai_responses.wire import CreateResponse
from app.responses.circumstances import Circumstances
from app.responses.following import Followed, Here
from app.responses.ports import EventStore, StoredItem
from app.responses.runs import Runs
from app.responses.stores import HeldKey, RequestKeys
from app.turn.errors import Conflict, InvalidRequest, NotFound, Unavailable
from app.turn.ids import IdSource

_log = logging.getLogger(__name__)

LASTS_SECS = 24 * 3600
# No response takes longer to begin; a key held for longer belongs to nobody.
STALE_SECS = 60
WAIT_SECS = 10.0
PAUSE_SECS = 0.1

_KEY = re.compile(r"[\x20-\x7e]{1,255}\Z")


class Repeatable(Struct, frozen=True, kw_only=True):
    """A request that may be repeated: who asks and how, the key, and the very bytes of the request."""

    tenant: str
    principal: str
    circumstances: Circumstances
    key: str
    body: bytes


class Maker(Protocol):
    """What makes responses and finds them again."""

    async def create(
        self, tenant: str, request: CreateResponse, principal: str, circumstances: Circumstances
    ) -> Followed: ...

    async def follow(self, tenant: str, response_id: str) -> Followed: ...

    async def get(self, tenant: str, response_id: str) -> bytes: ...


class Repeats:
    """Makes each response once. `now` is in seconds since the epoch."""

    def __init__(
        self,
        responses: Maker,
        runs: Runs,
        keys: RequestKeys,
        events: EventStore,
        ids: IdSource,
        now: Callable[[], float],
    ) -> None:
        self._responses = responses
        self._runs = runs
        self._keys = keys
        self._events = events
        self._ids = ids
        self._now = now

    async def create(self, asked: Repeatable, request: CreateResponse) -> Followed:
        """The response of the request, begun now or before. Raises what beginning it raises, and

        - `InvalidRequest(code="invalid_idempotency_key")`,
        - `Conflict(code="idempotency_key_reused")`: the key came with another request before,
        - `Conflict(code="idempotency_key_in_use")`: the response takes long to begin; ask again,
        - `Conflict(code="idempotent_response_gone")`: it was made, and was not stored or has been deleted since.
        """
        if _KEY.match(asked.key) is None:
            message = "An Idempotency-Key is 1 to 255 printable ASCII characters."
            raise InvalidRequest(message, param="Idempotency-Key", code="invalid_idempotency_key")
        digest, response_id = hashlib.sha256(asked.body).digest(), self._ids.new("resp")
        deadline = asyncio.get_running_loop().time() + WAIT_SECS
        while True:
            held = await self._hold(asked, digest, response_id)
            if held.response_id == response_id:
                return await self._begin(asked, request, response_id)
            if held.digest != digest:
                message = "This Idempotency-Key was used with another request before. Use a new one for a new request."
                raise Conflict(message, param="Idempotency-Key", code="idempotency_key_reused")
            if held.begun:
                return await self._attach(asked.tenant, held.response_id, waits=request.background is not True)
            if asyncio.get_running_loop().time() >= deadline:
                message = "The first request with this Idempotency-Key has not begun yet. Please retry."
                raise Conflict(message, param="Idempotency-Key", code="idempotency_key_in_use", retry_after=1)
            await asyncio.sleep(PAUSE_SECS)

    async def _hold(self, asked: Repeatable, digest: bytes, response_id: str) -> HeldKey:
        now = int(self._now())
        wanted = HeldKey(key=asked.key, digest=digest, response_id=response_id, begun=False, created_at=now)
        return await self._keys.hold(asked.tenant, wanted, expires_at=now + LASTS_SECS, stale_before=now - STALE_SECS)

    async def _begin(self, asked: Repeatable, request: CreateResponse, response_id: str) -> Followed:
        circumstances = structs.replace(asked.circumstances, response_id=response_id)
        begun = False
        try:
            run = await self._responses.create(asked.tenant, request, asked.principal, circumstances)
            begun = True
            return run
        finally:
            # Whoever waits for the beginning may be cancelled, and the response begin nevertheless.
            begun = begun or self._runs.get(asked.tenant, response_id) is not None
            await asyncio.shield(self._settle(asked, response_id, begun=begun))

    async def _settle(self, asked: Repeatable, response_id: str, *, begun: bool) -> None:
        settle = self._keys.begun if begun else self._keys.release
        try:
            await settle(asked.tenant, asked.key, response_id)
        except Unavailable as error:
            _log.warning("the key of %s stays held: %s", response_id, error.message)

    async def _attach(self, tenant: str, response_id: str, *, waits: bool) -> Followed:
        run = self._runs.get(tenant, response_id)
        if run is not None:
            return Here(run, self._events, own=False)
        try:
            view = await self._responses.follow(tenant, response_id)
        except NotFound as error:
            message = "The response of this Idempotency-Key was made, and is not kept. It is not made again."
            raise Conflict(message, param="Idempotency-Key", code="idempotent_response_gone") from error
        return Patient(self._responses, tenant, response_id, view) if waits else view


class Patient:
    """A response that was begun before, here or elsewhere, whose result is waited for."""

    def __init__(self, responses: Maker, tenant: str, response_id: str, view: Followed) -> None:
        self._responses = responses
        self._tenant = tenant
        self._id = response_id
        self._view = view

    def follow(self, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        """Its events, those there were and those to come."""
        return self._view.follow(after)

    async def result(self) -> bytes:
        """The response as JSON, once it is over."""
        async for _ in self._view.follow():
            pass
        return await self._responses.get(self._tenant, self._id)

    def items(self) -> tuple[StoredItem, ...]:
        """None of them are here."""
        return self._view.items()

    def detach(self) -> None:
        """The response is not this client's."""

    def steer(self) -> None:
        """The response is not this client's."""
