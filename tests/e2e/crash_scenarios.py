"""What a server is killed in the middle of, and what has to be so afterwards.

A scenario is told twice: what its client does until the server is gone, and what it finds at the next one. Between the
two the server dies wherever it is told to; the client knows only what it was sent.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Final

import asyncpg
import httpx
from msgspec import Struct

from tests.e2e.crashing import Seen, World, ended, verdict

SCRIPT: Final = """
replies:
  - when: Summarise the conversation
    text: A summary.
  - when: ^Hello
    text: Hello yourself.
  - text: Let me see.
    calls:
      - {name: charge, arguments: {number: 1}}
  - calls:
      - {name: charge, arguments: {number: 2}}
      - {name: look, arguments: {number: 3}}
  - text: That is all there is to say about it.
"""
# What sweeps, sweeps at once; who lets go, lets go soon.
SETTINGS: Final = {"history__sweep_secs": 0.1}
_TABLES: Final = ("runs", "responses", "entries", "items", "chains", "conversations", "mcp_approvals")


class Story(Struct):
    """What the client of one scenario knows."""

    there: World
    seens: list[Seen]
    answers: dict[str, Any]

    @property
    def seen(self) -> Seen:
        """The stream it read last."""
        return self.seens[-1]

    def stream(self, url: str, **more: object) -> None:
        """Ask for a response and read its stream as far as it comes."""
        self.seens.append(Seen())
        self.seen.read("POST", f"{url}/v1/responses", json=self.there.body(**more))


class Scenario(Struct, frozen=True):
    """`begin` may find that the server is gone, by any `TransportError`; `resume` says what is wrong."""

    begin: Callable[[Story, str], None]
    resume: Callable[[Story, str], list[str]]


def tell(story: Story, url: str, scenario: Scenario) -> None:
    """Do what the client does, until the server is gone."""
    try:
        scenario.begin(story, url)
    except httpx.TransportError:
        return


def outcome(story: Story, url: str, scenario: Scenario) -> list[str]:
    """What is wrong at the next server; empty when nothing is."""
    wrong = scenario.resume(story, url)
    # One that its client never heard of has to end, too, and nobody has waited for that.
    end = time.monotonic() + 60
    while (left := rows(story.there.database)["runs"]) and time.monotonic() < end:
        time.sleep(0.1)
    return [*wrong, f"{left} runs are open"] if left else wrong


def rows(database: str) -> dict[str, int]:
    """How many rows each table has."""
    if database.startswith("sqlite"):
        with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
            return {each: connection.execute(f"SELECT count(*) FROM {each}").fetchone()[0] for each in _TABLES}
    return asyncio.run(_rows(database))


async def _rows(url: str) -> dict[str, int]:
    connection = await asyncpg.connect(url)
    try:
        return {each: await connection.fetchval(f"SELECT count(*) FROM {each}") for each in _TABLES}
    finally:
        await connection.close()


# ── a run with tools ──────────────────────────────────────────────────────────


def _background(story: Story, url: str) -> None:
    story.stream(url, background=True)


def _background_goes_on(story: Story, url: str) -> list[str]:
    if story.seen.response_id is None:
        return []
    response = ended(url, story.seen.response_id)
    wrong = verdict(story.there, url, story.seen)
    calls = [item for item in response["output"] if item["type"] == "mcp_call"]
    if response["status"] != "completed" or len(calls) < 3:
        wrong.append(f"it ended as {response['status']} with {len(calls)} calls")
    return wrong


def _foreground(story: Story, url: str) -> None:
    story.stream(url)


def _foreground_ends(story: Story, url: str) -> list[str]:
    if story.seen.response_id is None:
        return []
    status = ended(url, story.seen.response_id)["status"]
    told = story.seen.end
    wrong = verdict(story.there, url, story.seen)
    if told is not None and told != status:
        wrong.append(f"it was told {told} and is {status}")
    return wrong if status in {"completed", "failed"} else [*wrong, f"it ended as {status}"]


# ── a call that waits for a person ────────────────────────────────────────────


def _ask(story: Story, url: str) -> None:
    story.stream(url, tools=[_asking(story)])
    _approve(story, url)


def _asking(story: Story) -> dict[str, object]:
    return {**story.there.tool, "require_approval": "always", "allowed_tools": ["charge"]}


def _approve(story: Story, url: str) -> None:
    first = story.seens[0]
    if (request := first.item("mcp_approval_request")) is None or first.end is None:
        return
    answer = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
    more = {"input": [answer], "previous_response_id": first.response_id, "background": True}
    story.stream(url, tools=[_asking(story)], **more)


def _approved_once(story: Story, url: str) -> list[str]:
    first = story.seens[0]
    if first.response_id is None:
        return []
    wrong = verdict(story.there, url, first, responses=2)
    if len(story.seens) == 1 or story.seen.response_id is None:
        # The answer was not heard to arrive: it may be given again, unless it had.
        if first.end is None and ended(url, first.response_id)["status"] == "completed":
            first.read("GET", f"{url}/v1/responses/{first.response_id}?stream=true")
        _approve(story, url)
    second = story.seen
    if second is not first and second.response_id is not None:
        ended(url, second.response_id)
        wrong += verdict(story.there, url, second, responses=2)
    charged = [effect["number"] for effect in story.there.effects() if effect["tool"] == "charge"]
    return wrong if charged.count(1) <= 1 else [*wrong, "what was approved once happened twice"]


# ── ending one, shortening one, forgetting one ────────────────────────────────


def _cancel(story: Story, url: str) -> None:
    asked = story.there.body(background=True, stream=False)
    made = httpx.post(f"{url}/v1/responses", json=asked, timeout=30)
    story.seens.append(Seen())
    story.seen.response_id = made.json()["id"]
    story.answers["cancelled"] = httpx.post(f"{url}/v1/responses/{made.json()['id']}/cancel", timeout=30).json()


def _cancelled_stays_so(story: Story, url: str) -> list[str]:
    if not story.seens or story.seen.response_id is None:
        return []
    response = ended(url, story.seen.response_id)
    wrong = verdict(story.there, url, story.seen)
    told = story.answers.get("cancelled", {}).get("status")
    if told in {"cancelled", "completed"} and response["status"] != told:
        wrong.append(f"it was told {told} and is {response['status']}")
    return wrong


def _compact(story: Story, url: str) -> None:
    said = {"type": "message", "role": "user", "content": "My name is Dolly."}
    story.stream(url, input=[said, {"type": "compaction_trigger"}], background=True)


def _compacted(story: Story, url: str) -> list[str]:
    if story.seen.response_id is None:
        return []
    response = ended(url, story.seen.response_id)
    wrong = verdict(story.there, url, story.seen)
    kinds = [item["type"] for item in response["output"]]
    if response["status"] != "completed" or kinds.count("compaction") != 1:
        wrong.append(f"it ended as {response['status']} with {kinds}")
    after = {"model": "simulated", "input": "Hello", "previous_response_id": response["id"]}
    answer = httpx.post(f"{url}/v1/responses", json=after, timeout=30)
    return wrong if answer.status_code == 200 else [*wrong, f"it cannot be gone on from: {answer.text}"]


def _forget(story: Story, url: str) -> None:
    soon = {"expires_after": {"anchor": "created_at", "seconds": 1}}
    talk = httpx.post(f"{url}/v1/conversations", json=soon, timeout=30).json()["id"]
    story.answers["talk"] = talk
    asked = {"model": "simulated", "input": "Hello", **soon}
    first = httpx.post(f"{url}/v1/responses", json=asked, timeout=30).json()["id"]
    httpx.post(f"{url}/v1/responses", json={**asked, "previous_response_id": first}, timeout=30)
    httpx.post(f"{url}/v1/responses", json={"model": "simulated", "input": "Hello", "conversation": talk}, timeout=30)
    story.stream(url, tools=[_asking(story)], **soon)
    _await_forgotten(story, url)


def _await_forgotten(story: Story, url: str) -> None:
    end = time.monotonic() + 60
    while any(rows(story.there.database).values()) and time.monotonic() < end:
        httpx.get(f"{url}/health", timeout=10)
        time.sleep(0.1)


def _nothing_is_left(story: Story, url: str) -> list[str]:
    _await_forgotten(story, url)
    left = {table: count for table, count in rows(story.there.database).items() if count}
    return [f"there is left: {left}"] if left else []


SCENARIOS: Final = {
    "background": Scenario(_background, _background_goes_on),
    "foreground": Scenario(_foreground, _foreground_ends),
    "approval": Scenario(_ask, _approved_once),
    "cancel": Scenario(_cancel, _cancelled_stays_so),
    "compaction": Scenario(_compact, _compacted),
    "sweep": Scenario(_forget, _nothing_is_left),
}


def crash(there: World, scenario: Scenario, point: str, number: int, *, counts: str = "") -> list[str]:
    """What is wrong after a server was killed there. `counts` names a file for how often it came to each point."""
    story = Story(there, [], {})
    more = {"COUNT_TO": counts} if counts else {}
    with there.gateway(point, str(number), more=more, ready=False, **SETTINGS) as (url, running):
        if there.await_ready(url, running):
            tell(story, url, scenario)
    if not story.seens:
        story.seens.append(Seen())
    with there.gateway(**SETTINGS) as (url, _):
        return outcome(story, url, scenario)
