"""The worker's front door: bare ASGI, one table of routes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from app.simulator import chat, completions, embeddings, metrics, responses, tokenizing
from app.simulator.http import Exchange, Message, Receive, Send
from app.simulator.worker import SimulatedWorker
from app.turn.errors import GatewayError, NotFound

Handler = Callable[[SimulatedWorker, Exchange, bytes], Coroutine[Any, Any, None]]


async def health(_worker: SimulatedWorker, exchange: Exchange, _body: bytes) -> None:
    """Answers as long as the process does, whatever else is made to fail."""
    await exchange.answer(b'{"status":"ok"}')


async def models(worker: SimulatedWorker, exchange: Exchange, _body: bytes) -> None:
    """The models, as vLLM lists them."""
    served = [
        {
            "id": model,
            "object": "model",
            "created": worker.started,
            "owned_by": "shepherd-simulator",
            "root": model,
            "parent": None,
            "max_model_len": worker.settings.max_model_len,
        }
        for model in worker.settings.models
    ]
    await exchange.answer(msgspec.json.encode({"object": "list", "data": served}))


_OPEN = frozenset(("/health", "/ping", *metrics.PATHS.values()))
_ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/v1/chat/completions"): chat.complete,
    ("POST", "/v1/completions"): completions.complete,
    ("POST", "/v1/responses"): responses.create,
    ("POST", "/v1/embeddings"): embeddings.embed,
    ("POST", "/tokenize"): tokenizing.tokenize,
    ("POST", "/detokenize"): tokenizing.detokenize,
    ("GET", "/v1/models"): models,
    ("GET", "/health"): health,
    ("GET", "/ping"): health,
    **{("GET", path): metrics.expose for path in metrics.PATHS.values()},
}


class SimulatorApp:
    """A worker as an ASGI application."""

    def __init__(self, worker: SimulatedWorker) -> None:
        self._worker = worker

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; a worker has nothing to do at start and stop."""
        if scope["type"] != "http":
            raise RuntimeError(f"the simulated worker speaks HTTP, not {scope['type']}")
        exchange = Exchange(scope, receive, send)
        try:
            handler = self._handler(exchange)
            body = await exchange.body()
            serving = handler(self._worker, exchange, body)
            if self._worker.engine.pace.instant:
                await serving
            else:
                await exchange.while_there(serving)
        except GatewayError as error:
            await exchange.refuse(error)

    def _handler(self, exchange: Exchange) -> Handler:
        handler = _ROUTES.get((exchange.method, exchange.path))
        if handler is None:
            known = any(path == exchange.path for _, path in _ROUTES)
            raise NotFound("Method Not Allowed" if known else "Not Found", status=405 if known else 404)
        if exchange.path not in _OPEN:
            self._worker.authorize(exchange.headers.get(b"authorization"))
        return handler
