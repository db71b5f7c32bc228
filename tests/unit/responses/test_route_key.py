"""What the fleet is told of a response's turns."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.dialects.openai_responses.decode import decode_create
from app.responses.planning import Whose
from app.turn.ids import CountedIds
from tests.support.scripted import Scripted


@pytest.mark.parametrize(
    ("fields", "whole"),
    [({}, True), ({"stream": False}, True), ({"stream": True}, False), ({"background": True}, False)],
)
async def test_a_turn_is_seen_when_it_is_whole_only_where_one_answer_is_waited_for(
    fields: dict[str, Any], whole: bool
) -> None:
    request = decode_create(msgspec.json.encode({"model": "m", "input": "x", **fields}))
    plan = await Scripted().service.planner.plan(Whose("t", ""), request, (), CountedIds())
    assert plan.route.whole is whole
