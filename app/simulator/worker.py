"""What all endpoints of one worker share: its models, its engine, its script and its faults."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import msgspec
from msgspec import Struct, structs
from xxhash import xxh3_64_hexdigest

from app.simulator.batch import BatchEngine, Publish
from app.simulator.engine import AnyEngine, Engine, InEngine
from app.simulator.faults import Faults, spoilt
from app.simulator.output import Output, output
from app.simulator.reply import Fault, Reply
from app.simulator.script import Script
from app.simulator.settings import SimulatorSettings
from app.simulator.tokens import Tokens
from app.simulator.wire import Sampling
from app.turn.errors import InvalidRequest, NotFound, Unauthenticated

_FILLER = "The sheep are on the hill and the grass is green. "


class Turn(Struct, frozen=True):
    """A request in the engine: who it is, what it will say, and how far that is."""

    id: str
    created: int
    model: str
    prompt: int
    output: Output
    work: InEngine

    @property
    def usage(self) -> bytes:
        """The usage as JSON."""
        said = len(self.output)
        details = {"cached_tokens": self.work.cached_tokens}
        thought = {"reasoning_tokens": self.output.reasoning_tokens}
        return msgspec.json.encode(
            {
                "prompt_tokens": self.prompt,
                "completion_tokens": said,
                "total_tokens": self.prompt + said,
                "prompt_tokens_details": details,
                "completion_tokens_details": thought,
            }
        )


class SimulatedWorker:
    """A worker's state. `now` tells seconds since the epoch, `publish` is told what the cache holds."""

    def __init__(
        self,
        settings: SimulatorSettings,
        script: Script,
        now: Callable[[], float],
        publish: Publish | None = None,
    ) -> None:
        self.settings = settings
        self.script = script
        self.now = now
        self.started = int(now())
        self.engine: AnyEngine = Engine(settings) if settings.engine == "paced" else BatchEngine(settings, publish)
        self.faults = Faults(settings)
        self._numbers = count(1)

    def authorize(self, authorization: bytes | None) -> None:
        """Raises `Unauthenticated` unless the key is right or none is wanted."""
        key = self.settings.api_key
        if key is not None and authorization != b"Bearer " + key.encode():
            raise Unauthenticated("Incorrect API key provided.")

    def ensure_model(self, model: str) -> None:
        """Raises `NotFound` for a model this worker does not serve."""
        if model not in self.settings.models:
            raise NotFound(f"The model `{model}` does not exist.", code="model_not_found", param="model")

    def reasons(self, model: str) -> bool:
        """Whether the model thinks before it answers."""
        return self.settings.reasoning or model.endswith("-reasoning")

    async def begin(self, kind: str, request: Sampling, prompt: Tokens, reply: Reply, limit: int | None) -> Turn:
        """Admit a request. Raises `InvalidRequest` for one that cannot be answered."""
        room = self.settings.max_model_len - len(prompt)
        if room <= 0:
            raise InvalidRequest(
                f"This model's maximum context length is {self.settings.max_model_len} tokens. However, your request "
                f"has {len(prompt)} input tokens. Please reduce the length of the input messages.",
                code="context_length_exceeded",
                param="messages" if kind == "chatcmpl" else "prompt",
            )
        if limit is not None and limit < 1:
            raise InvalidRequest(f"max_tokens must be at least 1, got {limit}.", param="max_tokens")
        made = generated(reply, request, room if limit is None else min(limit, room))
        work = await self.engine.start(prompt, made.tokens)
        # Ids name requests, so they differ; everything the model says is a function of what it was asked.
        identity = f"{kind}-{self.started:08x}{next(self._numbers):08x}"
        return Turn(identity, int(self.now()), request.model, len(prompt), made, work)


def generated(reply: Reply, request: Sampling, most: int) -> Output:
    """What the engine generates for a reply, within `most` tokens; exactly as many when told to ignore the end."""
    stop = [request.stop] if isinstance(request.stop, str) else request.stop or ()
    if request.ignore_eos and request.max_tokens is not None:
        text = reply.text + " " + _FILLER * (4 * most // len(_FILLER) + 1)
        return output(Reply(text, reasoning=reply.reasoning)).first(most)
    return output(reply, stop).first(most)


def with_fault(reply: Reply, fault: Fault) -> Reply:
    """The reply with its arguments spoilt, where that is the fault."""
    if fault.bad_arguments is None or not reply.calls:
        return reply
    calls = tuple(structs.replace(call, arguments=spoilt(call.arguments, fault.bad_arguments)) for call in reply.calls)
    return structs.replace(reply, calls=calls)


def call_ids(prompt: Tokens, number: int) -> list[str]:
    """The ids of a turn's calls: the same for the same prompt, different in every other turn."""
    seed = xxh3_64_hexdigest(memoryview(prompt))
    return [f"call_{seed}{index:02x}" for index in range(number)]
