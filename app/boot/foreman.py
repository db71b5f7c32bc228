"""The foreman: makes the runs that wait, and takes over those whose process is gone."""

from __future__ import annotations

from contextlib import AsyncExitStack

from app.boot.background import in_background
from app.responses.foreman import Foreman, both
from app.responses.making import Maker
from app.responses.ports import Ports
from app.responses.runs import Runs
from app.settings.tree import Settings

# Two may fail before anybody else takes the runs over.
RENEWALS_A_LEASE = 3


async def open_foreman(settings: Settings, ports: Ports, runs: Runs, maker: Maker, stack: AsyncExitStack) -> None:
    """Keep a foreman at work until the stack closes."""
    lease, poll = settings.history.lease_secs, settings.history.poll_secs
    foreman = Foreman(ports, runs, maker, settings.responses, renew_secs=lease / RENEWALS_A_LEASE, poll_secs=poll)
    await in_background(stack, both(foreman), "foreman")
