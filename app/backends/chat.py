"""Model turns at a worker that speaks chat completions."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec
from msgspec import Struct

from app.backends import errors
from app.backends.settings import BackendSettings
from app.dialects.openai_chat.call import Quirks, encode_request
from app.dialects.openai_chat.decode import ChatDecoder, is_whole
from app.dialects.openai_chat.faults import EngineFault
from app.dialects.openai_chat.render import unrendered
from app.dialects.sse import SseParser, SseTooLarge
from app.http1.transport import Answer, Call, Timeouts, Transport, TransportError, read_all
from app.turn.errors import Failure, UpstreamFailed
from app.turn.events import CallDelta, Hear, ReasoningDelta, RefusalDelta, TextDelta, TurnDone, TurnEvent, TurnFailed
from app.turn.items import Opaque
from app.turn.request import TurnRequest

_log = logging.getLogger(__name__)

_MAX_ERROR_BODY = 64 * 1024
_DELTAS = (TextDelta, RefusalDelta, ReasoningDelta, CallDelta)


class Tokenized(Struct, frozen=True):
    """An answer of /tokenize. The list is long, and mostly one that is known but for its end: it is read by whoever
    knows it."""

    tokens: msgspec.Raw


_tokenized = msgspec.json.Decoder(Tokenized)


class Site(Struct, frozen=True, kw_only=True):
    """A worker: its base URL without `/v1`, the key it wants, and the name it has for the model when it is not ours."""

    url: str
    api_key: str | None = None
    model: str | None = None

    def __repr__(self) -> str:
        return f"Site(url={self.url!r}, model={self.model!r})"


def base_of(url: str) -> str:
    """A worker's base URL: people write it with and without `/v1`."""
    return url.rstrip("/").removesuffix("/v1")


def timeouts_of(settings: BackendSettings) -> Timeouts:
    """The timeouts of one model turn."""
    return Timeouts(
        connect=settings.connect_timeout_secs,
        first_byte=settings.first_byte_timeout_secs,
        idle=settings.idle_timeout_secs,
        total=settings.request_timeout_secs,
    )


def quirks_of(settings: BackendSettings) -> Quirks:
    """Where the engine differs, as the operator says."""
    return Quirks(
        reasoning_field=settings.reasoning_field,
        limit_field=settings.limit_field,
        custom_tools=settings.custom_tools,
    )


def credentials(api_key: str | None) -> dict[str, str]:
    """The headers that carry a key."""
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}


class ChatBackend:
    """The `ModelBackend` port over one worker. `new_id` mints ids of calls that come without."""

    def __init__(self, site: Site, transport: Transport, settings: BackendSettings, new_id: Callable[[], str]) -> None:
        self._site = site
        self._transport = transport
        self._settings = settings
        self._new_id = new_id
        self._url = f"{site.url}/v1/chat/completions"
        self._timeouts = timeouts_of(settings)
        self._quirks = quirks_of(settings)
        self._headers = {
            "content-type": "application/json",
            "accept": "text/event-stream, application/json",
            "accept-encoding": "identity",
            **credentials(site.api_key),
        }

    async def stream(self, request: TurnRequest, hear: Hear | None = None) -> AsyncGenerator[TurnEvent, None]:
        """See `ModelBackend`."""
        try:
            body = encode_request(request, self._site.model or request.model, self._quirks)
        except (msgspec.MsgspecError, UnicodeEncodeError) as error:
            yield TurnFailed(Failure(400, None, f"The context cannot be written as JSON: {error}."))
            return
        if skipped := unrendered(request.items):
            _log.warning("the model is not shown items of unknown types: %s", ", ".join(skipped))
            if request.instructions is None and all(isinstance(item, Opaque) for item in request.items):
                message = "There is nothing to answer: the items of the input are of types that no model is told of."
                yield TurnFailed(Failure(400, None, message, "input"))
                return
        call = Call(method="POST", url=self._url, headers=self._headers, body=body, timeouts=self._timeouts)
        try:
            answer = await self._transport.send(call)
        except TransportError as error:
            yield self._failed(errors.of_transport(error))
            return
        decoder = ChatDecoder(self._new_id, logprobs=_wants_logprobs(request))
        reading = _Reading(answer, self._settings, decoder, hear)
        try:
            while not reading.over:
                for event in await reading.more():
                    yield self._failed(event.failure) if isinstance(event, TurnFailed) else event
        finally:
            answer.release(ending=reading.complete)

    async def tokenize(self, request: TurnRequest) -> bytes:
        """The tokens of the turn's prompt, as vLLM's /tokenize tells them: a list in JSON. Raises `GatewayError`."""
        try:
            body = encode_request(request, self._site.model or request.model, self._quirks)
            call = Call(
                method="POST",
                url=f"{self._site.url}/tokenize",
                headers={**self._headers, "accept": "application/json"},
                body=body,
                timeouts=self._timeouts,
            )
            answer = await self._transport.send(call)
            try:
                said = await read_all(answer, self._settings.max_answer_bytes)
            finally:
                answer.release()
            if answer.status != 200:
                raise errors.of_status(answer.status, said).error
            return bytes(_tokenized.decode(said).tokens)
        except TransportError as error:
            raise errors.of_transport(error).error from error
        except (msgspec.MsgspecError, UnicodeEncodeError) as error:
            raise UpstreamFailed(f"The prompt cannot be tokenised: {error}.") from error

    def _failed(self, failure: Failure) -> TurnFailed:
        if failure.status >= 500:
            _log.warning("worker %s: %s (%s)", self._site.url, failure.message, failure.code)
        return TurnFailed(failure)


def _wants_logprobs(request: TurnRequest) -> bool:
    return request.sampling.top_logprobs is not None


class _Reading:
    """An answer being read: bytes to events, and whatever breaks to the last of them. `over` says that it was told.

    Deltas go to `hear` at once, as long as that takes them and nothing before them was left."""

    def __init__(self, answer: Answer, settings: BackendSettings, decoder: ChatDecoder, hear: Hear | None) -> None:
        self.over = False
        self._hear = hear
        self._left_over: list[TurnEvent] = []
        self._whole: bytes | None = None
        self._answer = answer
        self._decoder = decoder
        self._parser = SseParser(settings.max_event_bytes)
        self._most = self._left = settings.max_answer_bytes
        self._begun = False
        self._heard = False

    @property
    def complete(self) -> bool:
        """Whether the turn came to its end, so that nothing more will come."""
        return self._decoder.complete

    async def more(self) -> list[TurnEvent]:
        """Some events that nobody heard; the last of all is `TurnDone` or `TurnFailed`. What was said before a failure
        is kept."""
        events = self._left_over
        try:
            if self._answer.status != 200:
                body = await read_all(self._answer, _MAX_ERROR_BODY)
                events.append(TurnFailed(errors.of_status(self._answer.status, body, self._answer.headers)))
            else:
                await self._answer.hear(self._take)
                if self._whole is not None:
                    self._add(self._decoder.whole(self._whole + await read_all(self._answer, self._most)))
        except TransportError as error:
            events.append(TurnFailed(errors.of_transport(error)))
        except EngineFault as fault:
            events.append(TurnFailed(errors.of_fault(fault)))
        except SseTooLarge as error:
            events.append(TurnFailed(Failure(502, "upstream_invalid", f"The worker sent {error}.")))
        self.over = bool(events) and isinstance(events[-1], TurnDone | TurnFailed)
        self._left_over = []
        return events

    def _take(self, data: bytes) -> bool:
        """Read some bytes; whether everything they say was heard."""
        if not data:
            self._end()
            return False
        if not self._begun:
            self._begun = True
            if is_whole(data):
                self._whole = data
                return False
        self._left -= len(data)
        if self._left < 0:
            raise SseTooLarge(f"an answer of more than {self._most} bytes")
        for sent in self._parser.feed(data):
            self._heard = True
            self._add(self._decoder.feed(sent.data))
        return not self._left_over

    def _end(self) -> None:
        for sent in self._parser.end():
            self._add(self._decoder.feed(sent.data))
        self._add(self._decoder.end())
        if not self._decoder.complete:
            self._left_over.append(TurnFailed(errors.CUT if self._heard else errors.NO_ANSWER))

    def _add(self, events: Sequence[TurnEvent]) -> None:
        hear, left = self._hear, self._left_over
        for event in events:
            if left or hear is None or not isinstance(event, _DELTAS) or not hear(event):
                left.append(event)
