"""Reads prompts by their text, or by their tokens where these are wanted and some worker can tell."""

from __future__ import annotations

from app.responses.ports import RouteKey
from app.routing.placer import Prompt
from app.routing.ports import World
from app.routing.prompts import PromptBook
from app.routing.registry import Registry
from app.routing.settings import RoutingSettings
from app.routing.token_prompts import TokenBook
from app.routing.tokens import GRANULE
from app.turn.errors import GatewayError
from app.turn.request import TurnRequest

_BYTES_A_TOKEN = 4


class PromptReader:
    """The prompts of one fleet."""

    def __init__(self, registry: Registry, settings: RoutingSettings, world: World) -> None:
        self._registry = registry
        self._settings = settings
        self._world = world
        self._texts = PromptBook(block_bytes=settings.cache_block_bytes)
        self._tokens = TokenBook()

    @property
    def worker_blocks(self) -> int:
        """How many blocks of prompts a worker that does not tell is thought to hold at most.

        That is all of its cache, though what is being written takes a part: a guess that is too good shrinks by itself.
        """
        block = self._settings.cache_block_bytes / _BYTES_A_TOKEN if self._settings.tokens == "text" else GRANULE
        return int(self._settings.worker_cache_tokens / block)

    async def read(self, key: RouteKey, request: TurnRequest) -> Prompt:
        """The turn's prompt."""
        said = await self._tokenized(request) if self._settings.tokens == "engine" else None
        prompt = None if said is None else self._tokens.read(key, request, said, self._adapter(request.model))
        return prompt or self._texts.read(request, run=key.run, conversation=key.conversation)

    def counted(self, model: str, prompt: Prompt, tokens: int) -> None:
        """The engine counted `tokens` in the prompt."""
        if self._settings.tokens == "text":
            self._texts.counted(model, prompt, tokens)

    def _adapter(self, model: str) -> bytes:
        """What engines call the adapter that the model is; empty for a model of its own."""
        return model.encode() if model in self._registry.snapshot.adapters else b""

    async def _tokenized(self, request: TurnRequest) -> bytes | None:
        workers = [worker for worker in self._registry.snapshot.workers if worker.healthy]
        able = [worker for worker in workers if worker.may_serve(request.model)]
        if self._world.tokenize is None or not able:
            return None
        try:
            worker = self._world.random.choice(able)
            return await self._world.tokenize(worker.url, request, api_key=worker.api_key)
        except GatewayError:
            return None
