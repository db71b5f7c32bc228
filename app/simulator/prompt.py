"""The worker's chat template: a conversation as the tokens the engine sees.

Tools first, then every message between a mark for its role and an end mark, then the mark of the assistant, whose turn
it is. What an assistant said and called is written the same way whether it is being generated or read back as history,
without the ids of calls, so the next turn of a conversation starts with the tokens of this one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from app.simulator.tokens import Mark, Tokens, encode, tokens_of
from app.simulator.wire import Content, Message, Part, Tool

_ROLES = {
    "system": Mark.SYSTEM,
    "developer": Mark.SYSTEM,
    "user": Mark.USER,
    "assistant": Mark.ASSISTANT,
    "tool": Mark.TOOL,
}


def text_of(content: Content) -> str:
    """The text in a message's content: what the rules look at."""
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content or () if part.text)


def _whole_of(content: Content) -> str:
    """All of a message's content; what is no text is taken as the JSON it came as."""
    return content if isinstance(content, str) else "\n".join(map(_part, content or ()))


def _part(part: Part) -> str:
    other = [raw for raw in (part.image_url, part.input_audio, part.file) if isinstance(raw, msgspec.Raw)]
    return part.text or part.refusal or "".join(bytes(raw).decode("utf-8", "replace") for raw in other)


def render(messages: Sequence[Message], tools: Sequence[Tool] = (), *, to_continue: bool = True) -> Tokens:
    """The conversation as tokens, ending where the assistant is `to_continue`."""
    tokens = tokens_of()
    if tools:
        tokens.append(Mark.TOOLS)
        for tool in tools:
            tokens.extend(encode(msgspec.json.encode(tool.function).decode()))
        tokens.append(Mark.END)
    for message in messages:
        tokens.append(_ROLES.get(message.role, Mark.OTHER))
        tokens.extend(encode(_whole_of(message.content)))
        for call in message.tool_calls or ():
            tokens.append(Mark.CALL)
            tokens.extend(encode(call.function.name))
            tokens.append(Mark.ARGUMENTS)
            tokens.extend(encode(call.function.arguments))
        tokens.append(Mark.END)
    if to_continue:
        tokens.append(Mark.ASSISTANT)
    return tokens
