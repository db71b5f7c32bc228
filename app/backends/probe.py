"""Asking workers how they are, and what they serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from app.backends import errors
from app.backends.chat import base_of, credentials
from app.dialects.openai_chat.wire import ModelList
from app.http1.transport import Call, Timeouts, Transport, TransportError, read_all
from app.responses.ports import ModelInfo
from app.turn.errors import UpstreamFailed

_MAX_BODY = 4 * 1024 * 1024

# Engines without `/health` (Ollama, providers) say so in one of these ways.
_NO_SUCH_PATH = frozenset((404, 405, 501))

_list = msgspec.json.Decoder(ModelList)


def _refusal(path: str, status: int) -> UpstreamFailed:
    """The same words each time, whatever the worker adds: they are compared with those of the last probe."""
    hint = ": it wants another API key" if status in (401, 403) else ""
    return UpstreamFailed(f"The worker answers GET {path} with status {status}{hint}.")


class HttpProbe:
    """The `Probe` port. `key_of` is asked for the key of a worker's URL."""

    def __init__(self, transport: Transport, timeouts: Timeouts, key_of: Callable[[str], str | None]) -> None:
        self._transport = transport
        self._timeouts = timeouts
        self._key_of = key_of

    async def check(self, url: str) -> None:
        """See `Probe`. A worker without `/health` is healthy when it lists its models."""
        path = "/health"
        status, _ = await self._get(url, path)
        if status in _NO_SUCH_PATH:
            path = "/v1/models"
            status, _ = await self._get(url, path)
        if not 200 <= status < 300:
            raise _refusal(path, status)

    async def models(self, url: str) -> Sequence[ModelInfo] | None:
        """See `Probe`."""
        status, body = await self._get(url, "/v1/models")
        if status in _NO_SUCH_PATH:
            return None
        if status != 200:
            raise _refusal("/v1/models", status)
        try:
            listed = _list.decode(body).data or ()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamFailed(f"The worker's list of models cannot be read: {error}.") from None
        return [
            ModelInfo(model.id, int(model.created or 0), model.owned_by or "", bool(model.parent)) for model in listed
        ]

    async def metrics(self, url: str, path: str) -> str | None:
        """See `Probe`."""
        status, body = await self._get(url, path)
        return body.decode("utf-8", "replace") if status == 200 else None

    async def _get(self, url: str, path: str) -> tuple[int, bytes]:
        headers = {"accept": "application/json", "accept-encoding": "identity", **credentials(self._key_of(url))}
        call = Call(method="GET", url=base_of(url) + path, headers=headers, timeouts=self._timeouts)
        try:
            answer = await self._transport.send(call)
            try:
                return answer.status, await read_all(answer, _MAX_BODY)
            finally:
                answer.release()
        except TransportError as error:
            raise errors.of_transport(error).error from error
