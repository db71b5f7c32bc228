"""What clients send to a worker: chat, completions, embeddings, tokens. Fields nobody reads here are passed over."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType


class Part(Struct):
    """A part of a message's content: text, or something the worker cannot look at but counts as tokens."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Raw | UnsetType = UNSET
    input_audio: Raw | UnsetType = UNSET
    file: Raw | UnsetType = UNSET


Content: TypeAlias = str | list[Part] | None


class CalledFunction(Struct):
    """The function a call names."""

    name: str
    arguments: str = ""


class ToolCall(Struct):
    """A call the model made in an earlier turn."""

    id: str
    function: CalledFunction


class Message(Struct):
    """A message of the conversation."""

    role: str
    content: Content = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Function(Struct):
    """A function that may be called."""

    name: str
    description: str | None = None
    parameters: Raw = Raw(b"{}")


class Tool(Struct):
    """A tool offered to the model."""

    function: Function
    type: Literal["function"] = "function"


class NamedFunction(Struct):
    """A function by its name."""

    name: str


class NamedTool(Struct):
    """The tool that must be called."""

    function: NamedFunction


class JsonSchema(Struct):
    """The schema an answer must have."""

    schema: Raw = Raw(b"{}")


class ResponseFormat(Struct):
    """The form an answer must have."""

    type: str
    json_schema: JsonSchema | None = None


class StreamOptions(Struct):
    """What a stream tells besides the answer."""

    include_usage: bool | None = None


class Sampling(Struct, kw_only=True):
    """What chat and completions share. Temperature and the like change nothing and are not even read."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    ignore_eos: bool | None = None
    stop: str | list[str] | None = None
    n: int | None = None

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatRequest(Sampling, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[Message]
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_completion_tokens: int | None = None

    @property
    def limit(self) -> int | None:
        """Most tokens of the answer."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(Sampling, kw_only=True):
    """POST /v1/completions. `prompt` is a string, its tokens, or a list of either."""

    prompt: Raw
    echo: bool | None = None


class EmbeddingRequest(Struct, kw_only=True):
    """POST /v1/embeddings."""

    model: str
    input: Raw
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


class TokenizeRequest(Struct, kw_only=True):
    """POST /tokenize: a prompt as it is, or messages as the chat template makes them."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: list[Tool] | None = None
    add_generation_prompt: bool = True


class DetokenizeRequest(Struct, kw_only=True):
    """POST /detokenize."""

    tokens: list[int]
    model: str | None = None


chat_request = msgspec.json.Decoder(ChatRequest)
completion_request = msgspec.json.Decoder(CompletionRequest)
embedding_request = msgspec.json.Decoder(EmbeddingRequest)
tokenize_request = msgspec.json.Decoder(TokenizeRequest)
detokenize_request = msgspec.json.Decoder(DetokenizeRequest)
