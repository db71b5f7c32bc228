"""Generated sessions: the same whenever, prompts that begin with what was said, the statistics they were made for."""

from __future__ import annotations

import random

import pytest

from bench.crowd import one_by_one
from bench.routing import ideal
from bench.sessions import PUBLISHED, new_tokens, session, statistics
from bench.toolagent import PUBLISHED as PUBLISHED_TOOLAGENT
from bench.toolagent import toolagent

BLOCK = 512


def test_the_same_session_whoever_asks_and_whenever() -> None:
    later = [session(number) for number in (7, 3)]
    random.seed(1)
    assert [session(number) for number in (3, 7)] == later[::-1]


def test_a_prompt_begins_with_the_one_before_and_its_answer() -> None:
    one = session(1)
    for before, turn in zip(one.turns, one.turns[1:], strict=False):
        keys = one.keys(turn.version, turn.tokens, BLOCK)
        assert len(keys) == turn.tokens // BLOCK
        if turn.version == before.version:
            after = one.keys(before.version, before.tokens + before.output, BLOCK)
            assert turn.tokens > before.tokens + before.output
            assert keys[: len(after)] == after
        else:
            shared = one.preamble // BLOCK
            old = one.keys(before.version, before.tokens, BLOCK)
            assert keys[:shared] == old[:shared]
            assert not set(keys[shared:]) & set(old[shared:])


def test_sessions_share_the_preamble_of_their_kind_and_nothing_else() -> None:
    sessions = [session(number) for number in range(60)]
    for place, one in enumerate(sessions):
        for other in sessions[:place]:
            mine, theirs = (each.keys(0, each.turns[0].tokens, BLOCK) for each in (one, other))
            common = sum(a == b for a, b in zip(mine, theirs, strict=False))
            assert common == (one.preamble // BLOCK if one.kind == other.kind else 0)


def test_sessions_are_like_those_that_were_recorded() -> None:
    sessions = [session(number) for number in range(700)]
    found = statistics(sessions)
    for key in ("turns_p50", "prompt_mean", "answer_mean", "new_p50", "new_p90", "new_p99", "pause_p50"):
        assert found[key] == pytest.approx(PUBLISHED[key], rel=0.15), key
    assert ideal(one_by_one(sessions[:200], BLOCK), BLOCK) == pytest.approx(PUBLISHED["reuse"], abs=0.01)


def test_what_is_new_is_what_the_prompt_before_does_not_have() -> None:
    one = session(1)
    new = list(new_tokens(one))
    assert new[0] == one.turns[0].tokens - one.preamble
    assert new[1] == one.turns[1].tokens - one.turns[0].tokens


def test_tool_agents_are_like_the_trace_that_is_not_to_be_had() -> None:
    requests = toolagent(2.0, BLOCK)
    count = len(requests)
    assert count == pytest.approx(PUBLISHED_TOOLAGENT["requests"], rel=0.02)
    assert requests[-1].arrived == pytest.approx(1800, rel=0.02)
    assert [each.arrived for each in requests] == sorted(each.arrived for each in requests)
    assert sum(each.tokens for each in requests) / count == pytest.approx(PUBLISHED_TOOLAGENT["prompt_mean"], rel=0.1)
    assert sum(each.output for each in requests) / count == pytest.approx(PUBLISHED_TOOLAGENT["answer_mean"], rel=0.05)
    assert ideal(requests, BLOCK) == pytest.approx(PUBLISHED_TOOLAGENT["reuse"], abs=0.015)
