"""Reads prompts by their text, or by their tokens where these are wanted and some worker can tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

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

_log = logging.getLogger(__name__)

_BYTES_A_TOKEN = 4
# A worker that has no /tokenize, and one that did not answer in time, are not asked for so long.
_UNABLE_SECS, _LATE_SECS = 300.0, 10.0
_NO_SUCH_PATH = frozenset((404, 405))


class PromptReader:
    """The prompts of one fleet. `unable` is told of a worker that cannot tell the tokens of prompts."""

    def __init__(
        self, registry: Registry, settings: RoutingSettings, world: World, unable: Callable[[str], None]
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._world = world
        self._texts = PromptBook(block_bytes=settings.cache_block_bytes)
        self._tokens = TokenBook()
        self._unable = unable
        self._not_before: dict[str, float] = {}

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
        now = self._world.monotonic()
        workers = [worker for worker in self._registry.snapshot.workers if worker.healthy]
        able = [each for each in workers if each.may_serve(request.model) and self._not_before.get(each.id, now) <= now]
        if self._world.tokenize is None or not able:
            return None
        worker = self._world.random.choice(able)
        try:
            # One that stands still would keep the turn for as long as a whole answer may take.
            async with asyncio.timeout(self._settings.health_check_timeout_secs):
                return await self._world.tokenize(worker.url, request, api_key=worker.api_key)
        except TimeoutError:
            self._pass_over(worker.id, _LATE_SECS)
        except GatewayError as error:
            if error.status in _NO_SUCH_PATH:
                _log.warning("worker %s does not tell the tokens of prompts: what it holds is guessed", worker.id)
                self._pass_over(worker.id, _UNABLE_SECS)
                self._unable(worker.id)
        return None

    def _pass_over(self, worker_id: str, secs: float) -> None:
        now = self._world.monotonic()
        self._not_before = {each: at for each, at in self._not_before.items() if at > now} | {worker_id: now + secs}
