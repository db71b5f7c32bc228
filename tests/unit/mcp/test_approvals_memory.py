"""An approval is used once, by the one who asked, in time."""

import pytest

from app.mcp.approvals import MemoryApprovals, Waiting, answered
from app.mcp.audit import digest
from app.responses.ports import Approval
from app.turn.errors import Conflict, NotFound
from app.turn.items import Terms


class Hands:
    """A clock turned by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at


def approval(**changes: object) -> Approval:
    fields: dict[str, object] = {
        "id": "mcpr_1",
        "principal": "key_1",
        "response_id": "resp_1",
        "server_label": "bank",
        "tool": "pay",
        "arguments": '{"to":"ann"}',
        "terms": Terms("place", "def", "1"),
        "created_at": 100.0,
        "expires_at": 200.0,
    }
    return Approval(**{**fields, **changes})


async def test_it_is_used_once() -> None:
    kept = MemoryApprovals(Hands())
    await kept.open("t", [approval()])
    used = await kept.consume("t", "mcpr_1", "key_1", approve=True)
    assert used == approval(approved=True)
    with pytest.raises(Conflict) as refused:
        await kept.consume("t", "mcpr_1", "key_1", approve=True)
    assert refused.value.code == "approval_already_used"


async def test_a_refusal_uses_it_up_too() -> None:
    kept = MemoryApprovals(Hands())
    await kept.open("t", [approval()])
    assert (await kept.consume("t", "mcpr_1", "key_1", approve=False)).approved is False
    with pytest.raises(Conflict):
        await kept.consume("t", "mcpr_1", "key_1", approve=True)


@pytest.mark.parametrize(("tenant", "principal"), [("other", "key_1"), ("t", "key_2")])
async def test_to_anybody_else_it_does_not_exist(tenant: str, principal: str) -> None:
    kept = MemoryApprovals(Hands())
    await kept.open("t", [approval()])
    with pytest.raises(NotFound):
        await kept.consume(tenant, "mcpr_1", principal, approve=True)
    assert (await kept.consume("t", "mcpr_1", "key_1", approve=True)).approved


async def test_it_expires() -> None:
    clock = Hands()
    kept = MemoryApprovals(clock)
    await kept.open("t", [approval()])
    clock.at = 200.0
    with pytest.raises(Conflict) as refused:
        await kept.consume("t", "mcpr_1", "key_1", approve=True)
    assert refused.value.code == "approval_expired"


def test_a_second_person_has_to_agree_and_may_refuse() -> None:
    waiting = Waiting(approval(), second_person=True)
    with pytest.raises(Conflict) as refused:
        answered(waiting, 150.0, approve=True)
    assert refused.value.code == "approval_pending"
    assert answered(waiting, 150.0, approve=False).approved is False
    assert answered(Waiting(approval(), True, word=True), 150.0, approve=True).approved is True
    assert answered(Waiting(approval(), True, word=False), 150.0, approve=True).approved is False
    assert answered(Waiting(approval(), word=False), 150.0, approve=True).approved is False


def test_a_digest_stands_for_exactly_these_arguments() -> None:
    assert digest('{"to":"ann"}') != digest('{"to": "ann"}')
    assert len(digest("\ud800")) == 64
