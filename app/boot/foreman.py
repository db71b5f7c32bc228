"""Responses, and the foreman, who makes the runs that wait and takes over those whose process is gone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from app.boot.background import in_background
from app.responses.foreman import Foreman, both
from app.responses.ports import Ports
from app.responses.runs import Runs
from app.responses.service import Responses
from app.settings.tree import Settings
from app.turn.events import Finish

# Two may fail before anybody else takes the runs over.
RENEWALS_A_LEASE = 3


async def open_responses(
    settings: Settings, ports: Ports, runs: Runs, finished: Callable[[Finish], None], stack: AsyncExitStack
) -> Responses:
    """The use-cases; a foreman is at work until the stack closes. `finished` is told of each end."""
    responses = Responses(ports, runs, settings.responses, finished)
    lease, poll = settings.history.lease_secs, settings.history.poll_secs
    foreman = Foreman(
        ports, runs, responses.maker, settings.responses, renew_secs=lease / RENEWALS_A_LEASE, poll_secs=poll
    )
    await in_background(stack, both(foreman), "foreman")
    return responses
