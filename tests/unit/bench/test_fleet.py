"""The fleet bench: ports that are free, conversations that grow, and what is compared."""

from __future__ import annotations

import json
import random
import socket
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.fleet import read
from bench.fleet_agents import Conversation, Way, crowd, opened, words
from bench.fleet_client import Outcome
from bench.fleet_report import beside
from bench.sessions import Habits, Spread, session
from tests.support.ports import free, free_block
from tests.support.processes import simulator


def test_a_block_of_ports_has_none_that_is_in_use() -> None:
    taken = free_block(8, random.Random(5))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", taken + 3))
        listening.listen()
        block = free_block(8, random.Random(5))
    assert block != taken
    assert all(free(port) for port in range(block, block + 8))


def test_the_folder_for_logs_is_made(tmp_path: Path) -> None:
    logs = tmp_path / "not" / "there"
    read(["--agents", "2", "--logs", str(logs)])
    assert logs.is_dir()


def sent(conversation: Conversation, way: Way) -> dict[str, object]:
    return json.loads(conversation.body(way, 99)[1])


def test_the_next_prompt_is_the_one_before_with_the_answer_and_what_is_new() -> None:
    conversation = opened(session(1), session(1).turns[0])
    before = sent(conversation, "chat")["messages"]
    assert isinstance(before, list)
    conversation.answered(Outcome(text="I looked.", identity="resp_1"))
    conversation.say("And now?")
    said = [{"role": "assistant", "content": "I looked."}, {"role": "user", "content": "And now?"}]
    assert sent(conversation, "chat")["messages"] == before + said
    assert sent(conversation, "whole")["input"] == before + said
    assert "previous_response_id" not in sent(conversation, "whole")
    stored = sent(conversation, "stored")
    assert stored["input"] == said[1:]
    assert stored["previous_response_id"] == "resp_1"


async def test_agents_are_asked_again_once_they_are_answered_and_what_was_said_is_cached() -> None:
    soon = Spread(0.01, 0.1)
    habits = Habits(turns=Spread(3, 0.01), opening=Spread(300, 0.1), resumed=0, rewritten=0, tool=soon, human=soon)
    habits = replace(habits, preamble=(200, 300), growth=Spread(50, 0.1), answer=Spread(40, 0.1))
    with simulator("--block-size", "16") as url:
        took = await crowd(url, lambda number: session(number, habits), 2, "chat", 1.0)
    assert {each.outcome.how for each in took} == {"done"}
    assert {each.place for each in took} == {0, 1, 2}
    before = None
    for each in sorted(took, key=lambda each: (each.session, each.place)):
        if before is not None and each.place:
            known = before.outcome.tokens + session(each.session, habits).turns[before.place].output
            assert each.outcome.cached >= known - 16
            assert each.asked > before.asked + before.outcome.ended
        before = each


def test_texts_are_as_long_as_said_and_only_preambles_are_shared() -> None:
    ones = [session(number) for number in range(30)]
    kinds = {one.kind: opened(one, one.turns[0]).messages[0]["content"] for one in ones}
    for one in ones:
        system, user = (message["content"] for message in opened(one, one.turns[0]).messages)
        assert system == kinds[one.kind]
        assert len(system) == one.preamble * 4
        assert len(user) == (one.turns[0].tokens - one.preamble) * 4
    assert len({opened(one, one.turns[0]).messages[1]["content"][:16] for one in ones}) == len(ones)
    assert words("a", 40) == words("a", 50)[:160]


def test_only_turns_that_were_done_behind_all_are_compared() -> None:
    fast, slow = (Outcome(first=secs, ended=2 * secs, how="done") for secs in (1.0, 3.0))
    found = {"smg": {(0, 0): slow}, "shepherd": {(0, 0): fast, (0, 1): slow}}
    lines = list(beside(found))
    assert lines[0].startswith("The 1 turns")
    assert lines[-1].startswith("| shepherd | 2 | 1.00 [3.00] |")
    assert lines[-1].endswith("| 2.00 [3.00] |")


def test_agents_are_not_killed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read(["--agents", "2", "--kill"])
    assert "--kill" in capsys.readouterr().err
