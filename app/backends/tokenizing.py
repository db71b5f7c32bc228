"""How long a turn's prompt is, in the words of the worker that would run it."""

from __future__ import annotations

import logging

import msgspec

from app.backends.chat import Site, credentials, quirks_of, timeouts_of
from app.backends.settings import BackendSettings
from app.dialects.openai_chat.tokenize import decode_tokenize, encode_tokenize
from app.http1.transport import Call, Transport, TransportError, read_all
from app.turn.errors import InvalidRequest
from app.turn.request import TurnRequest

_log = logging.getLogger(__name__)

# The tokens themselves come with their number.
_MAX_BODY = 64 * 1024 * 1024


class Tokenizer:
    """Asks workers. Those that cannot say, or cannot be reached, are no error: somebody else may know."""

    def __init__(self, transport: Transport, settings: BackendSettings) -> None:
        self._transport = transport
        self._timeouts = timeouts_of(settings)
        self._quirks = quirks_of(settings)

    async def count(self, site: Site, request: TurnRequest) -> int | None:
        """The tokens of the prompt, or None. Raises `InvalidRequest` for a context that cannot be written as JSON."""
        try:
            body = encode_tokenize(request, site.model or request.model, self._quirks)
        except (msgspec.MsgspecError, UnicodeEncodeError) as error:
            raise InvalidRequest(f"The context cannot be written as JSON: {error}.") from error
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            "accept-encoding": "identity",
            **credentials(site.api_key),
        }
        call = Call(method="POST", url=f"{site.url}/tokenize", headers=headers, body=body, timeouts=self._timeouts)
        try:
            answer = await self._transport.send(call)
            try:
                said = await read_all(answer, _MAX_BODY)
            finally:
                answer.release()
        except TransportError as error:
            _log.warning("a worker was asked for a number of tokens: %s", error.message)
            return None
        return decode_tokenize(said) if answer.status == 200 else None
