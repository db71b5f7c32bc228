"""Asks people: what is asked is remembered before anyone hears of it, so that every answer finds its question."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, structs

from app.responses.eliciting import Asking, Elicitation
from app.responses.ports import Approval, Ports
from app.responses.settings import ResponsesSettings
from app.turn.events import ApprovalOpened, AskApproval, CallTool, Elicited
from app.turn.ids import part_of
from app.turn.items import Terms

# What an approval holds for when nobody said: the call itself.
NO_TERMS = Terms("", "", "")


class Asker(Struct, frozen=True):
    """Asks about the calls of one response, which `principal` has asked for. `earliest` is a moment, or when the
    response is forgotten if that is sooner: what is asked does not outlive it.

    Methods raise `Unavailable`: then nobody is asked."""

    ports: Ports
    settings: ResponsesSettings
    tenant: str
    response_id: str
    principal: str
    earliest: Callable[[float], float]

    async def approval(self, effect: AskApproval) -> ApprovalOpened:
        """Whether a call may be made."""
        now = self.ports.clock.now()
        approval = Approval(
            id=self.ports.ids.new("mcpr"),
            principal=self.principal,
            response_id=self.response_id,
            server_label=effect.server_label,
            tool=effect.tool,
            arguments=effect.arguments,
            terms=effect.terms or NO_TERMS,
            created_at=now,
            expires_at=self.earliest(now + self.settings.approval_secs),
        )
        await self.ports.approvals.open(self.tenant, [approval])
        return ApprovalOpened(effect.call_id, approval.id, effect.server_label, effect.tool, effect.arguments)

    async def questions(self, call: CallTool, asking: Asking) -> Elicited:
        """What a call asks before it can go on."""
        now, identity = self.ports.clock.now(), self.ports.ids.new("mcpe")
        lasts = self.settings.elicitation_secs
        elicitation = Elicitation(
            id=identity,
            principal=self.principal,
            response_id=self.response_id,
            server_label=call.server_label,
            tool=call.tool,
            arguments=call.arguments,
            questions=tuple(
                structs.replace(question, id=part_of(identity, number))
                for number, question in enumerate(asking.questions, start=1)
            ),
            state=asking.state,
            approved=call.approved,
            created_at=now,
            expires_at=self.earliest(now + min(lasts, lasts if asking.lasts is None else asking.lasts)),
        )
        await self.ports.elicitations.open(self.tenant, [elicitation])
        asked = elicitation.questions
        return Elicited(call.call_id, identity, call.server_label, call.tool, call.arguments, asked)
