"""Finding deferred tools: which of them a search means, best first. Pure, and the same for the same words.

A tool is scored by the words of the query that occur in its name (3), its description or its namespace's (1), and
its parameters (1); a word that begins one of a name's words counts for half. Ties keep the order in which the tools
were given. A query that names tools exactly finds just these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from app.turn.items import ToolSpec

MOST_FOUND = 5

# Short words say nothing about which tool is meant.
_STOP = frozenset(
    """
    a an and are as at be by can do for from get how i in is it me my of on or that the this to use with you
    """.split()  # noqa: SIM905 - a list this long reads better as text
)
_WORDS = re.compile(r"[a-z]+|[0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class _Schema(msgspec.Struct):
    properties: Mapping[str, msgspec.Raw] = {}


class _Query(msgspec.Struct):
    query: str | list[str] = ""
    paths: list[str] = []
    limit: int | None = None


_schema = msgspec.json.Decoder(_Schema)
_query = msgspec.json.Decoder(_Query)


def search(arguments: str, tools: Sequence[ToolSpec], about: Mapping[str, str]) -> tuple[ToolSpec, ...]:
    """The tools that a call with these `arguments` finds, best first, at most `MOST_FOUND`.

    `arguments` is a JSON object with `query` (words, or a list of them) or `paths` (names); anything else finds
    nothing. `about` describes servers and namespaces by their names.
    """
    try:
        asked = _query.decode(arguments)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return ()
    text = asked.query if isinstance(asked.query, str) else " ".join(asked.query)
    exact = {*asked.paths, *re.split(r"[\s,]+", text)}
    named = tuple(tool for tool in tools if exact & _names(tool))
    if named:
        return named
    wanted = dict.fromkeys(_words(text))
    scores = [(_score(wanted, tool, about), index) for index, tool in enumerate(tools)]
    best = sorted((-score, index) for score, index in scores if score > 0)
    most = MOST_FOUND if asked.limit is None else max(1, min(asked.limit, MOST_FOUND))
    return tuple(tools[index] for _, index in best[:most])


def _names(tool: ToolSpec) -> set[str]:
    own = tool.tool or tool.name
    home = tool.namespace or tool.server_label
    return {tool.name, own, *((f"{home}.{own}", f"{home}/{own}", home) if home else ())}


def _score(wanted: Mapping[str, None], tool: ToolSpec, about: Mapping[str, str]) -> float:
    home = tool.namespace or tool.server_label or ""
    names = set(_words(f"{home} {tool.tool or tool.name}"))
    said = set(_words(f"{tool.description or ''} {about.get(home, '')}"))
    parameters = set(_words(" ".join(_parameters(tool))))
    score = 0.0
    for word in wanted:
        if word in names:
            score += 3
        elif any(name.startswith(word) or word.startswith(name) for name in names if min(len(name), len(word)) > 2):
            score += 1.5
        score += (word in said) + (word in parameters)
    return score


def _parameters(tool: ToolSpec) -> Sequence[str]:
    try:
        return tuple(_schema.decode(tool.parameters).properties)
    except msgspec.DecodeError:
        return ()


def _words(text: str) -> list[str]:
    return [word for word in _WORDS.findall(_CAMEL.sub(" ", text).lower()) if word not in _STOP]
