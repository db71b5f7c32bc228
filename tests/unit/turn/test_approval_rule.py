"""Which calls a request wants a person's word for."""

import pytest

from app.turn.request import NEVER_ASK, ApprovalRule, McpServer, ToolFilter

READS = ToolFilter(read_only=True)
NAMED = ToolFilter(names=("look", "drop"))


def test_a_server_asks_unless_the_request_says_otherwise() -> None:
    assert McpServer(label="s").require_approval.asks("look", read_only=True)
    assert not NEVER_ASK.asks("drop", read_only=False)


@pytest.mark.parametrize(
    ("only", "tool", "read_only", "covered"),
    [
        (ToolFilter(), "look", True, False),
        (READS, "look", True, True),
        (READS, "drop", False, False),
        (ToolFilter(read_only=False), "drop", False, True),
        (NAMED, "drop", False, True),
        (NAMED, "other", True, False),
        (ToolFilter(names=("look", "drop"), read_only=True), "drop", False, False),
        (ToolFilter(names=()), "look", True, False),
    ],
)
def test_a_filter_covers_what_is_named_and_only_reads(
    only: ToolFilter, tool: str, read_only: bool, covered: bool
) -> None:
    assert only.covers(tool, read_only=read_only) is covered


def test_the_stricter_filter_wins_and_the_rest_is_asked_for() -> None:
    rule = ApprovalRule(always=ToolFilter(names=("drop",)), never=NAMED)
    assert rule.asks("drop", read_only=False)
    assert not rule.asks("look", read_only=False)
    assert rule.asks("other", read_only=True)
