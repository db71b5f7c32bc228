"""Wire structs of chat completions: what engines answer, read as leniently as engines write.

Every field may be missing or null somewhere (vLLM, SGLang, llama.cpp, Ollama, mlx-lm each leave out something else),
and what is not read here may be anything. What we send is written by `render`.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct

# What a Raw field holds when it is missing: msgspec cannot decode `Raw | None`.
NULL = Raw(b"null")


class FunctionPiece(Struct, frozen=True):
    """Part of a call's function. `arguments` is a string by the contract; some engines send the object itself."""

    name: str | None = None
    arguments: Any = None


class CustomPiece(Struct, frozen=True):
    """Part of a custom tool's call."""

    name: str | None = None
    input: str | None = None


class CallPiece(Struct, frozen=True):
    """Part of a tool call; the pieces of one call share an `index`, where the engine sends one."""

    index: int | None = None
    id: str | int | None = None
    function: FunctionPiece | None = None
    custom: CustomPiece | None = None


class Delta(Struct, frozen=True):
    """What a chunk adds, or, in an answer that is not streamed, the whole message.

    Thinking comes as `reasoning_content` (DeepSeek's name) or `reasoning`, and sometimes as both at once.
    """

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[CallPiece] | None = None


class TopLogprob(Struct, frozen=True):
    """A token that might have been."""

    token: str
    logprob: float | None = None
    bytes: list[int] | None = None


class TokenLogprob(Struct, frozen=True):
    """A token, how likely it was, and what else might have been."""

    token: str
    logprob: float | None = None
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] | None = None


class Logprobs(Struct, frozen=True):
    """Log probabilities of the text of a chunk."""

    content: list[TokenLogprob] | None = None


class Choice(Struct, frozen=True):
    """One of the answers; only the one with index 0 was asked for. `logprobs` is a `Logprobs`, read when asked for."""

    index: int | None = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    logprobs: Raw = NULL


class InputDetails(Struct, frozen=True):
    """Which part of the prompt was cached."""

    cached_tokens: int | None = None


class OutputDetails(Struct, frozen=True):
    """Which part of the answer was thinking."""

    reasoning_tokens: int | None = None


class UsageBody(Struct, frozen=True):
    """Token counts. SGLang reports `reasoning_tokens` here, beside the details."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: InputDetails | None = None
    completion_tokens_details: OutputDetails | None = None
    reasoning_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None


class Chunk(Struct, frozen=True):
    """A chunk of a stream, or a whole answer. `error` ends a stream that began well.

    Older vLLM and SGLang put the error's fields at the top instead: then `object` is "error".
    """

    choices: list[Choice] | None = None
    usage: UsageBody | None = None
    error: Raw = NULL
    object: Any = None


class ErrorFields(Struct, frozen=True):
    """The fields of an error, in the places where engines put them.

    OpenAI: `error{message,type,param,code}`; vLLM before 0.9 and SGLang: at the top; FastAPI: `detail`; mlx-lm and
    Ollama's own API: `error` is the message.
    """

    message: Any = None
    type: Any = None
    code: Any = None
    detail: Any = None
    error: Raw = NULL


class ModelBody(Struct, frozen=True):
    """A model that is served. An adapter (LoRA) has the model it adapts for its `parent`."""

    id: str
    created: int | float | None = None
    owned_by: str | None = None
    parent: Any = None


class ModelList(Struct, frozen=True):
    """The answer to `GET /v1/models`. Ollama says null when it has none."""

    data: list[ModelBody] | None = None
