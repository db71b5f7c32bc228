"""A long prompt is read in parts, so that short ones need not wait for all of it.

Engines read first come first served, and a prompt of 100,000 tokens keeps a worker for ten seconds and more. But what
an engine has read it keeps. So the beginning of a prompt is sent by itself, as a turn whose answer is one token long;
when it is read those go first who were waiting, then comes the next part, which finds the one before it cached, and
last the turn itself. It is Sarathi's chunked prefill (A. Agrawal et al., OSDI 2024) done from outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from app.routing.loads import PartRead
from app.turn.items import Item, Message, Part, Text, ToolResult
from app.turn.request import TurnRequest
from app.turn.usage import Usage

# Of what was read before, so much less may be found: the last block was not full, the engine counts its template's
# last words.
_KEPT_SHARE, _KEPT_TOKENS = 0.95, 512

_encode = msgspec.json.Encoder().encode


class Parts:
    """The parts of one prompt, `tokens` long, at one worker.

    `found` is what the engine had cached of it before any of it was read.
    """

    def __init__(self, request: TurnRequest, tokens: int) -> None:
        self.found: int | None = None
        self._request = request
        self._tokens = max(tokens, 1)
        self._sizes = [len(_encode((request.tools, request.instructions)))]
        for item in request.items:
            self._sizes.append(self._sizes[-1] + len(_encode(item)))
        self._sent = self._read = 0
        self._all_there = False

    def upto(self, tokens: int) -> TurnRequest | None:
        """The beginning of the prompt, of about so many tokens at most.

        None where the prompt cannot be cut behind the part before.
        """
        items, size = _cut(self._request.items, self._sizes, self._sizes[-1] * tokens // self._tokens)
        if not items or size <= self._sent:
            return None
        self._sent = size
        sampling = replace(self._request.sampling, max_output_tokens=1)
        return replace(self._request, items=items, sampling=sampling)

    def read(self, usage: Usage) -> PartRead:
        """The engine has read that part."""
        still = self.found is None or kept(usage.cached_tokens, self._read)
        if self.found is None or self._all_there:
            self.found = usage.cached_tokens
            self._all_there = kept(usage.cached_tokens, usage.input_tokens)
        self._read = usage.input_tokens
        upto = self._sent * self._tokens // self._sizes[-1]
        return PartRead(upto, usage.cached_tokens, usage.input_tokens - usage.cached_tokens, still)


def kept(found: int, read: int) -> bool:
    """Whether the engine that found so many tokens cached still had the `read` ones of the part before."""
    return found >= _KEPT_SHARE * read - _KEPT_TOKENS


def _cut(items: Sequence[Item], sizes: Sequence[int], size: int) -> tuple[tuple[Item, ...], int]:
    """The items as far as `size` goes, and how large they are.

    Chat templates want to hear the user or a tool last, so that is where it is cut.
    """
    count = sum(1 for end in sizes[1:] if end <= size)
    if count < len(items):
        part = _clipped(items[count], (size - sizes[count]) / (sizes[count + 1] - sizes[count]))
        if part is not None:
            return (*items[:count], part), size
    while count and not isinstance(items[count - 1], ToolResult) and not _is_asked(items[count - 1]):
        count -= 1
    return tuple(items[:count]), sizes[count]


def _is_asked(item: Item) -> bool:
    return isinstance(item, Message) and item.role != "assistant"


def _clipped(item: Item, share: float) -> Item | None:
    """That share of the item; None where there is nothing to say or it cannot be cut."""
    if isinstance(item, ToolResult):
        output = item.output
        clipped = output[: int(len(output) * share)] if isinstance(output, str) else _clipped_parts(output, share)
        return replace(item, output=clipped) if clipped else None
    if isinstance(item, Message) and _is_asked(item):
        content = _clipped_parts(item.content, share)
        return replace(item, content=content) if content else None
    return None


def _clipped_parts(parts: Sequence[Part], share: float) -> tuple[Part, ...]:
    sizes = [len(_encode(part)) for part in parts]
    left, kept = int(sum(sizes) * share), list[Part]()
    for part, size in zip(parts, sizes, strict=True):
        if size <= left:
            kept.append(part)
            left -= size
            continue
        if isinstance(part, Text) and (text := part.text[: len(part.text) * left // size]):
            kept.append(Text(text))
        break
    return tuple(kept)
