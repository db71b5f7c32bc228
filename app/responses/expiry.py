"""Until when a response is kept: as long as its tenant keeps responses, or not so long where somebody said so.

Times are in seconds since the epoch, by whole seconds.
"""

from __future__ import annotations

from typing import Final

from app.dialects.openai_responses.wire import CreateResponse
from app.responses.plan import Plan
from app.responses.settings import ResponsesSettings
from app.turn.errors import InvalidRequest

DAY: Final = 86_400


def check(request: CreateResponse, tenant: str, settings: ResponsesSettings) -> None:
    """Raise `InvalidRequest(param="expires_after.seconds")` when a response is to be kept for longer than the tenant
    keeps any."""
    longest = _retention(tenant, settings)
    if request.expires_after is not None and request.expires_after.seconds > longest:
        message = f"Invalid 'expires_after.seconds': responses are kept for at most {longest} seconds here."
        raise InvalidRequest(message, param="expires_after.seconds", code="integer_above_max_value")


def expires_at(plan: Plan, tenant: str, settings: ResponsesSettings, created_at: int, now: int) -> int:
    """When a response that is complete `now` is forgotten."""
    lasts = int(settings.transient_secs) if plan.request.store is False else _retention(tenant, settings)
    return int(earliest(plan, created_at, now + lasts))


def earliest(plan: Plan, created_at: int, moment: float) -> float:
    """`moment`, or when the client wants forgotten what is made of the plan, whichever comes first.

    A response made in a conversation does not outlive it.
    """
    after = plan.request.expires_after
    asked = None if after is None else created_at + after.seconds
    return min(each for each in (moment, asked, plan.until) if each is not None)


def _retention(tenant: str, settings: ResponsesSettings) -> int:
    return int(settings.tenant_retention_days.get(tenant, settings.retention_days) * DAY)
