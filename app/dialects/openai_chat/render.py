"""Our context as chat messages.

Chat knows fewer kinds of things than we do, in a stricter order. The rules:

* Everything the model produced in one turn (thinking, text, all its calls) is one assistant message, and the results of
  its calls follow it directly, in the order of the calls, wherever they stand in the context: engines refuse anything
  else, and equal conversations must be equal byte for byte for prefix caches to hold.
* `instructions` and the system and developer messages that open the context are one system message, since many chat
  templates allow only one, first. Later ones stay where they are. `developer` becomes `system`.
* A message of nothing but text has a string as its content: templates that only know strings are common.
* Arguments that are no JSON object were the model's mistake, but engines parse them for their templates and refuse the
  whole conversation. They are wrapped in an object that shows them: `{"invalid_arguments": "…"}`.
* A tool result is text. Images and files in it are named, not shown.

Not rendered: `ToolListing` (tools are offered in `tools`) and `Opaque` items, which nobody here can read; `unrendered`
names the latter, so that whoever asks can say so. Sealed reasoning has no text and is skipped too.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Raw

from app.dialects.openai_chat.custom import called
from app.turn.items import (
    File,
    Image,
    Item,
    Message,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
)

# The field of an assistant message that carries thinking back to the engine. vLLM reads `reasoning` only, DeepSeek,
# SGLang and llama.cpp `reasoning_content` only, and each ignores the other; OpenAI's own API refuses both.
ReasoningField: TypeAlias = Literal["both", "reasoning", "reasoning_content", "none"]

_object = msgspec.json.Decoder(dict[str, Raw])
# A tuple: asked of ten thousand messages, a union is slower.
_TEXTS = (Text, Refusal)


def messages(
    instructions: str | None, items: Sequence[Item], reasoning: ReasoningField = "both", *, custom: bool = False
) -> list[dict[str, Any]]:
    """The context as JSON-able chat messages, in order. `custom`: the engine knows custom tools."""
    opening, rest = _opening(instructions, items)
    results = _results_of_calls(rest)
    out: list[dict[str, Any]] = [{"role": "system", "content": opening}] if opening else []
    turn = _AssistantTurn(reasoning, custom=custom)
    for position, item in enumerate(rest):
        match item:
            case Message():
                if item.role == "assistant":
                    turn.texts.append(_joined(item.content, ""))
                else:
                    out += turn.finish(results)
                    out.append({"role": _role(item), "content": _content(item.content)})
            case Reasoning():
                turn.thoughts.append(item.text)
            case ToolCall():
                turn.calls.append((position, item))
            case ToolResult():
                # It is written after its call; here it only says that the turn is over.
                if turn.calls:
                    out += turn.finish(results)
            case _:
                pass
    return out + turn.finish(results)


def unrendered(items: Sequence[Item]) -> tuple[str, ...]:
    """The kinds of items in the context that the model is not shown because nobody here knows them, sorted."""
    return tuple(sorted({item.kind for item in items if isinstance(item, Opaque)}))


class _AssistantTurn:
    """What the model said since somebody else spoke."""

    def __init__(self, reasoning: ReasoningField, *, custom: bool) -> None:
        self._reasoning = reasoning
        self._custom = custom
        self.thoughts: list[str] = []
        self.texts: list[str] = []
        self.calls: list[tuple[int, ToolCall]] = []

    def finish(self, results: dict[int, ToolResult]) -> list[dict[str, Any]]:
        """The turn as messages; afterwards it is empty. Thinking that led to nothing is dropped: engines refuse an
        assistant message without content and calls."""
        if not (self.texts or self.calls or self.thoughts):
            return []
        thought, text, calls = _paragraphs(self.thoughts), _paragraphs(self.texts), self.calls
        self.thoughts, self.texts, self.calls = [], [], []
        if not text and not calls:
            return []
        said: dict[str, Any] = {"role": "assistant", "content": text}
        if thought and self._reasoning != "none":
            names = ("reasoning", "reasoning_content") if self._reasoning == "both" else (self._reasoning,)
            said |= dict.fromkeys(names, thought)
        if calls:
            said["tool_calls"] = [
                called(call) if self._custom and call.kind == "custom" else _call(call) for _, call in calls
            ]
        answers = [
            {"role": "tool", "tool_call_id": call.call_id, "content": _output(results[position])}
            for position, call in calls
            if position in results
        ]
        return [said, *answers]


def _opening(instructions: str | None, items: Sequence[Item]) -> tuple[str, Sequence[Item]]:
    texts = [instructions] if instructions else []
    for position, item in enumerate(items):
        if not isinstance(item, Message) or _role(item) != "system" or not _is_text(item.content):
            return "\n\n".join(texts), items[position:]
        texts.append(_joined(item.content, "\n"))
    return "\n\n".join(texts), ()


def _results_of_calls(items: Sequence[Item]) -> dict[int, ToolResult]:
    """Each call's result, by the call's position. Engines reuse call ids: the first open call gets the result."""
    waiting: defaultdict[str, deque[int]] = defaultdict(deque)
    found: dict[int, ToolResult] = {}
    for position, item in enumerate(items):
        if isinstance(item, ToolCall):
            waiting[item.call_id].append(position)
        elif isinstance(item, ToolResult) and waiting[item.call_id]:
            found[waiting[item.call_id].popleft()] = item
    return found


def _role(message: Message) -> str:
    return "system" if message.role == "developer" else message.role


def _paragraphs(texts: Sequence[str]) -> str:
    return "\n\n".join([text for text in texts if text])


def _call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": _arguments(call.arguments)}
    return {"id": call.call_id, "type": "function", "function": function}


def _arguments(given: str) -> str:
    if not given.strip():
        return "{}"
    try:
        _object.decode(given)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return msgspec.json.encode({"invalid_arguments": printable(given)}).decode()
    return given


def printable(text: str) -> str:
    """`text` without lone surrogates, which JSON cannot carry as UTF-8."""
    return text.encode("utf-8", "replace").decode()


# ── content ───────────────────────────────────────────────────────────────────


def _is_text(parts: Sequence[Part]) -> bool:
    return all(isinstance(part, _TEXTS) for part in parts)


def _joined(parts: Sequence[Part], glue: str) -> str:
    return glue.join([part.text for part in parts if isinstance(part, _TEXTS)])


def _content(parts: Sequence[Part]) -> str | list[Any]:
    return _joined(parts, "\n") if _is_text(parts) else [_part(part) for part in parts]


def _part(part: Part) -> Any:
    match part:
        case Text() | Refusal():
            return {"type": "text", "text": part.text}
        case Image():
            detail = {"detail": part.detail} if part.detail else {}
            return {"type": "image_url", "image_url": {"url": part.url, **detail}}
        case File():
            fields = {
                "file_data": part.data,
                "file_url": part.url,
                "file_id": part.file_id,
                "filename": part.filename,
            }
            return {"type": "file", "file": {name: value for name, value in fields.items() if value}}
        case _:
            # Perhaps the engine knows it: `input_audio` and `video_url` are chat's own. If not, it says so.
            return part.raw


def _output(result: ToolResult) -> str:
    if isinstance(result.output, str):
        return result.output
    return "\n".join(map(_as_text, result.output))


def _as_text(part: Part) -> str:
    match part:
        case Text() | Refusal():
            return part.text
        case Image():
            return f"[{_media_type(part.url) or 'image'}, not shown]"
        case File():
            name = part.filename or part.url or part.file_id or _media_type(part.data or "")
            return f"[file {name}, not shown]" if name else "[file, not shown]"
        case _:
            return bytes(part.raw).decode()


def _media_type(url: str) -> str:
    return url[5:].partition(",")[0].partition(";")[0] if url.startswith("data:") else ""
