"""Prompts: kept in versions per tenant, and filled when a request names one."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Raw, Struct, structs

from app.dialects.openai_responses import decode
from app.dialects.openai_responses.faults import UNREADABLE, absent, read, wrong
from app.dialects.openai_responses.prompts import PromptBody, fill, holes
from app.dialects.openai_responses.sealed import Sealed
from app.dialects.openai_responses.wire import CreateResponse, PromptRef
from app.responses.stores import Order, Page, PromptStore, PromptVersion
from app.turn.errors import InvalidRequest, NotFound
from app.turn.ids import CountedIds, IdSource

_body = msgspec.json.Decoder(PromptBody)
_encode = msgspec.json.Encoder().encode


class Prompt(Struct, frozen=True, kw_only=True):
    """A version of a prompt. Times are in seconds since the epoch."""

    id: str
    version: int
    latest: int
    created_at: int
    version_created_at: int
    body: PromptBody

    @property
    def holes(self) -> tuple[str, ...]:
        """The names of its variables."""
        return holes(self.body)


class Prompts:
    """The use-cases of prompts. `now` is in seconds since the epoch."""

    def __init__(self, store: PromptStore, ids: IdSource, now: Callable[[], float]) -> None:
        self._store = store
        self._ids = ids
        self._now = now

    async def create(self, tenant: str, body: bytes) -> Prompt:
        """A new prompt. Raises `InvalidRequest`."""
        read_body = _checked(body)
        prompt_id = self._ids.new("pmpt")
        return _seen(await self._store.create(tenant, prompt_id, _encode(read_body), int(self._now())))

    async def get(self, tenant: str, prompt_id: str, version: str | None = None) -> Prompt:
        """A version, or the newest. Raises `NotFound`."""
        return _seen(await self._store.get(tenant, prompt_id, None if version is None else _number(version, "version")))

    async def listed(self, tenant: str, *, limit: int, order: Order, after: str | None) -> Page[Prompt]:
        """The newest versions. Raises `InvalidRequest(param="after")`."""
        page = await self._store.listed(tenant, limit=limit, order=order, after=after)
        return Page(tuple(map(_seen, page.data)), page.has_more)

    async def add_version(self, tenant: str, prompt_id: str, body: bytes) -> Prompt:
        """The next version; it replaces all of the one before. Raises `InvalidRequest`, `NotFound`."""
        return _seen(await self._store.add_version(tenant, prompt_id, _encode(_checked(body)), int(self._now())))

    async def delete(self, tenant: str, prompt_id: str) -> None:
        """Forget the prompt. Raises `NotFound`."""
        await self._store.delete(tenant, prompt_id)


async def filled(store: PromptStore, tenant: str, request: CreateResponse) -> CreateResponse:
    """`request` with what its prompt says, and the version that says it; the request's own instructions win, and its
    own input comes last.

    Raises `NotFound` for a prompt or version that is not there, `InvalidRequest` for its variables, `Unavailable`.
    """
    asked = request.prompt
    if asked is None:
        return request
    wanted = None if asked.version is None else _number(asked.version, "prompt.version")
    try:
        found = _seen(await store.get(tenant, asked.id, wanted))
    except NotFound as error:
        param = "prompt.version" if error.code == "prompt_version_not_found" else "prompt.id"
        raise NotFound(error.message, code=error.code, param=param) from error
    _check_own(request)
    made = fill(found.body, asked.variables or {})
    own: list[Raw] = []
    if isinstance(request.input, str):
        own = [Raw(_encode({"type": "message", "role": "user", "content": request.input}))]
    elif request.input is not None:
        own = request.input
    return structs.replace(
        request,
        instructions=made.instructions if request.instructions is None else request.instructions,
        input=[*made.input, *own],
        prompt=PromptRef(id=asked.id, version=str(found.version), variables=asked.variables),
    )


def _check_own(request: CreateResponse) -> None:
    # While its items still have the numbers its author knows.
    decode.input_items(request, CountedIds(), _anything)


def _anything(_token: str) -> Sealed:
    return Sealed("reasoning", "")


def _checked(body: bytes) -> PromptBody:
    try:
        body.decode()
    except UNREADABLE:
        raise InvalidRequest("The body of the request is not valid JSON.", code="invalid_json") from None
    found = read(_body, body)
    if not found.instructions and not found.input:
        raise absent("instructions")
    if isinstance(found.input, list):
        decode.input_items(CreateResponse(model="-", input=found.input), CountedIds())
    unknown = set(found.variables or ()) - set(holes(found))
    if unknown:
        raise wrong(f"variables.{min(unknown)}", "nothing in the prompt has this name in double braces.")
    return found


def _number(version: str, path: str) -> int:
    if not version.isascii() or not version.isdigit() or len(version) > 9:
        raise wrong(path, "the number of a version is expected.")
    return int(version)


def _seen(version: PromptVersion) -> Prompt:
    return Prompt(
        id=version.id,
        version=version.version,
        latest=version.latest,
        created_at=version.created_at,
        version_created_at=version.version_created_at,
        body=_body.decode(version.body),
    )
