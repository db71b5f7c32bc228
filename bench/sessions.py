"""Sessions of coding agents, generated: prompts that grow turn by turn, with a tool's or a human's time in between.

A surrogate. Nobody recorded these sessions; they are drawn so that their statistics come near those published for
recorded ones (callanjfox/kv-cache-tester, `traces/`: Claude Code, 48,658 turns of 710 sessions). `PUBLISHED` has those,
`statistics` says what a set of sessions really has. What is known of the order of things is used too: most sessions
begin with little and some go on from a long conversation; now and then something early in the context changes, and all
behind the tools' descriptions is new; a context that is full is replaced by a summary. Sessions of the same kind share
their preamble (the tools' descriptions and the system prompt), and sessions share nothing else.

Everything about a session follows from its number, so it is the same whoever asks and whenever.
"""

from __future__ import annotations

import random
import statistics as stats
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

PUBLISHED: Mapping[str, float] = {
    "turns_p50": 45,
    "prompt_mean": 123_450,
    "answer_mean": 439,
    "new_p50": 962,
    "new_p90": 4_819,
    "new_p99": 89_509,
    "pause_p50": 10.0,
    "reuse": 0.964,
}


class Spread(Struct, frozen=True):
    """A log-normal distribution: its median, and the standard deviation of its logarithm."""

    median: float
    sigma: float

    def draw(self, rng: random.Random) -> float:
        """One value."""
        return self.median * rng.lognormvariate(0.0, self.sigma)


class Habits(Struct, frozen=True, kw_only=True):
    """What sessions are drawn from. Lengths in tokens, pauses in seconds.

    A session has `turns`. It begins with the preamble of its kind, of which there are `kinds`, the second half as
    frequent as the first, the third a third, and so on; `preamble` is the least and the most of it. Behind it comes
    `opening`, or with a chance of `resumed` as much as `resumption`. A turn's answer is `answer`; the next prompt is
    longer by `growth`, the answer included. With a chance of `rewritten` all behind the preamble is other text of the
    same length. Where a prompt would be longer than `window` it is the preamble and a `summary`. Before a turn there is
    a `tool`, or with a chance of `humans`, and before the first one, a `human`; no pause is longer than
    `longest_pause`, as where the recorded sessions are replayed.
    """

    turns: Spread = Spread(45, 0.92)
    most_turns: int = 400
    kinds: int = 8
    preamble: tuple[int, int] = (9_000, 15_000)
    opening: Spread = Spread(6_000, 0.7)
    resumed: float = 0.35
    resumption: Spread = Spread(120_000, 0.4)
    answer: Spread = Spread(205, 1.25)
    longest_answer: int = 8_000
    growth: Spread = Spread(750, 1.28)
    rewritten: float = 0.01
    window: int = 260_000
    summary: Spread = Spread(40_000, 0.4)
    tool: Spread = Spread(4.0, 1.0)
    human: Spread = Spread(30.0, 1.0)
    humans: float = 0.5
    longest_pause: float = 60.0


class Turn(Struct, frozen=True):
    """`pause` seconds after the answer before, a prompt of `tokens` and an answer of `output`. Prompts of one `version`
    begin with each other; those of another share the preamble."""

    pause: float
    tokens: int
    output: int
    version: int


class Session(Struct, frozen=True):
    """The turns of one agent. The first `preamble` tokens are those of all sessions of its `kind`."""

    number: int
    kind: int
    preamble: int
    turns: Sequence[Turn]

    def keys(self, version: int, tokens: int, block_tokens: int) -> list[int]:
        """The keys of the whole blocks in the first `tokens` of a version: equal keys, equal prefixes."""
        shared = min(self.preamble, tokens) // block_tokens
        own = (self.number + 1) << 40 | version << 20
        kind = self.kind << 20
        return [*range(kind, kind + shared), *range(own + shared, own + tokens // block_tokens)]


RECORDED = Habits()


def hurried(habits: Habits, speed: float) -> Habits:
    """The same with pauses `speed` times shorter."""
    return replace(
        habits,
        tool=replace(habits.tool, median=habits.tool.median / speed),
        human=replace(habits.human, median=habits.human.median / speed),
        longest_pause=habits.longest_pause / speed,
    )


def any_kind(rng: random.Random, kinds: int) -> int:
    """One of so many kinds, the second half as frequent as the first, the third a third, and so on."""
    return rng.choices(range(kinds), [1 / (rank + 1) for rank in range(kinds)])[0]


def session(number: int, habits: Habits = RECORDED) -> Session:
    """The session of that number."""
    rng = random.Random(f"session {number}")
    kind = any_kind(rng, habits.kinds)
    preamble = random.Random(f"kind {kind}").randint(*habits.preamble)
    opening = habits.resumption if rng.random() < habits.resumed else habits.opening
    tokens = min(preamble + int(opening.draw(rng)), habits.window)
    turns: list[Turn] = []
    version = 0
    for place in range(min(max(round(habits.turns.draw(rng)), 1), habits.most_turns)):
        wait = habits.human if place == 0 or rng.random() < habits.humans else habits.tool
        pause = min(wait.draw(rng), habits.longest_pause)
        output = min(int(habits.answer.draw(rng)) + 1, habits.longest_answer)
        turns.append(Turn(pause, tokens, output, version))
        tokens += max(int(habits.growth.draw(rng)), output + 1)
        summary = int(habits.summary.draw(rng))
        changed = rng.random() < habits.rewritten
        if tokens > habits.window:
            tokens, changed = preamble + summary, True
        version += changed
    return Session(number, kind, preamble, turns)


def new_tokens(one: Session) -> Iterator[int]:
    """Of each turn: how much of its prompt neither the prompt before nor the preamble has."""
    version, known = -1, 0
    for turn in one.turns:
        yield turn.tokens - (known if turn.version == version else one.preamble)
        version, known = turn.version, turn.tokens


def statistics(sessions: Sequence[Session]) -> dict[str, float]:
    """What `PUBLISHED` has, of these sessions, and some more; reuse apart, which depends on the blocks."""
    turns = [turn for one in sessions for turn in one.turns]
    new = sorted(tokens for one in sessions for tokens in new_tokens(one))
    pauses = sorted(turn.pause for turn in turns)
    return {
        "sessions": len(sessions),
        "turns": len(turns),
        "turns_p50": stats.median(len(one.turns) for one in sessions),
        "prompt_mean": stats.fmean(turn.tokens for turn in turns),
        "answer_mean": stats.fmean(turn.output for turn in turns),
        "new_mean": stats.fmean(new),
        "new_p50": new[len(new) // 2],
        "new_p90": new[int(len(new) * 0.9)],
        "new_p99": new[int(len(new) * 0.99)],
        "pause_p50": pauses[len(pauses) // 2],
        "pause_mean": stats.fmean(pauses),
    }
