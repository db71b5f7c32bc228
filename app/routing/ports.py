"""Ports: what routing needs from the rooms beside it. `boot` connects them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from app.responses.ports import ModelBackend, ModelInfo
from app.turn.errors import Failure
from app.turn.request import TurnRequest


class Probe(Protocol):
    """Asks a worker how it is. Raises `GatewayError`, which says why, when the worker does not answer."""

    async def models(self, url: str) -> Sequence[ModelInfo] | None:
        """The models the worker serves; None when it has no such list."""
        ...

    async def check(self, url: str) -> None:
        """Raises `GatewayError` also when the worker says that it cannot take work."""
        ...

    async def metrics(self, url: str, path: str) -> str | None:
        """What the worker tells Prometheus at `path`; None where it has nothing there."""
        ...


class Connect(Protocol):
    """Makes the backend that runs turns at a worker."""

    def __call__(self, url: str, *, model: str | None = None, api_key: str | None = None) -> ModelBackend: ...


class Tokenize(Protocol):
    """Asks a worker for the tokens of a turn's prompt, a list in JSON. Raises `GatewayError`."""

    async def __call__(self, url: str, request: TurnRequest, *, api_key: str | None) -> bytes: ...


class Seen(Struct, frozen=True):
    """How well a prediction was: tokens of a prompt that were thought to be cached, that were, and all of them."""

    model: str
    predicted: int
    actual: int
    tokens: int


# What became of a part of a long prompt: it was `read`; it was, but what was read before it had been `lost`, and the
# rest goes whole; or it `failed`, and all goes whole, or begins anew elsewhere where the worker went down.
PartFate: TypeAlias = Literal["read", "lost", "failed"]


def _uncounted(*_: object) -> None:
    """Nobody counts."""


class World(Struct, frozen=True, kw_only=True):
    """What a fleet acts on and is driven by.

    `may_retry_elsewhere` says of a turn that failed before its first event whether another worker may fare better.
    `monotonic` is a clock in seconds that never goes back. `seen` is told how well caches were predicted, `parted` what
    became of a part of a prompt of the model; `tokenize` is there when workers can be asked for tokens.
    """

    probe: Probe
    connect: Connect
    may_retry_elsewhere: Callable[[Failure], bool]
    monotonic: Callable[[], float]
    random: random.Random
    seen: Callable[[Seen], None] = _uncounted
    parted: Callable[[str, PartFate], None] = _uncounted
    tokenize: Tokenize | None = None
