"""kill -9 at every step of a run: what was sent stays as it was sent, no effect happens twice, and the run ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.crash_everywhere import new_world
from tests.e2e.crash_scenarios import SCENARIOS, SCRIPT, crash
from tests.e2e.crashing import LAST_WORDS, Park, Seen, World, ended, only_response, open_runs, park, verdict

pytestmark = pytest.mark.slow

# (point, which time). A run of the script begins once, is claimed once, calls three tools. How often it
# writes depends on how quick the machine is: twice at least, for it waits for that before each turn's calls.
POINTS = [
    *((f"{moment}-begin", 1) for moment in ("before", "after")),
    *((f"{moment}-claim", 1) for moment in ("before", "after")),
    *((f"{moment}-append", number) for moment in ("before", "after") for number in (1, 2)),
    *((f"{moment}-call", number) for moment in ("before", "after") for number in (1, 2)),
    *((f"{moment}-conclude", 1) for moment in ("before", "after")),
]


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Park]:
    """What does not die."""
    with park(tmp_path_factory.mktemp("park")) as found:
        yield found


@pytest.fixture
def there(beside: Park, tmp_path: Path) -> World:
    """A database of the test's own."""
    return beside.world(tmp_path)


@pytest.mark.parametrize(("point", "number"), POINTS, ids=str)
def test_a_background_run_survives(there: World, tmp_path: Path, point: str, number: int) -> None:
    seen = Seen()
    with there.gateway(point, str(number)) as (url, running):
        seen.read("POST", f"{url}/v1/responses", json=there.body(background=True))
        # It dies between the commit and the last bytes, or a moment after.
        running.wait(120)
    # Whoever makes the run does not wait for its client to have heard of it.
    seen.response_id = seen.response_id or only_response(there.home / "history.db")
    with there.gateway() as (url, _):
        if seen.response_id is None:
            assert point == "before-begin"
            return
        assert verdict(there, url, seen) == []
        response = ended(url, seen.response_id)
        assert response["status"] == "completed", response["error"]
        assert [item["type"] for item in response["output"] if item["type"] == "mcp_call"] == ["mcp_call"] * 3
        assert response["output"][-1]["content"][0]["text"] == "That is all there is to say about it."
        after = httpx.post(
            f"{url}/v1/responses",
            json={**there.body(stream=False), "previous_response_id": seen.response_id},
            timeout=30,
        )
        assert after.status_code == 200, after.text
    assert open_runs(tmp_path / "history.db") == 0


@pytest.mark.parametrize(
    ("point", "number"), [("after-append", 2), ("before-call", 1), ("after-call", 2), ("before-conclude", 1)]
)
def test_a_foreground_run_ends_as_failed_and_says_why(there: World, tmp_path: Path, point: str, number: int) -> None:
    seen = Seen()
    with there.gateway(point, str(number)) as (url, _):
        seen.read("POST", f"{url}/v1/responses", json=there.body())
    assert seen.cut
    seen.response_id = seen.response_id or only_response(there.home / "history.db")
    assert seen.response_id is not None
    with there.gateway() as (url, _):
        assert verdict(there, url, seen) == []
        response = ended(url, seen.response_id)
        failed = response["status"] == "failed" and response["error"]["code"] == "server_restarted"
        if point != "before-conclude":
            assert failed
        elif any(b"output_item.done" in data and LAST_WORDS in data for data in seen.events.values()):
            # Everything had happened, and was told; only its end was not written yet.
            assert response["status"] == "completed"
        else:
            # What the model said last may have been about to be written together with the end.
            assert response["status"] == "completed" or failed
    assert open_runs(tmp_path / "history.db") == 0


def test_a_call_nobody_knows_the_end_of_is_not_made_again(there: World) -> None:
    seen = Seen()
    with there.gateway("after-call", "1") as (url, _):
        seen.read("POST", f"{url}/v1/responses", json=there.body(background=True))
    seen.response_id = seen.response_id or only_response(there.home / "history.db")
    assert seen.response_id is not None
    assert [effect["number"] for effect in there.effects()] == [1]
    with there.gateway() as (url, _):
        assert verdict(there, url, seen) == []
        calls = [item for item in ended(url, seen.response_id)["output"] if item["type"] == "mcp_call"]
    assert "unknown" in str(calls[0]["error"])
    assert [call["status"] for call in calls] == ["failed", "completed", "completed"]
    assert sorted(effect["number"] for effect in there.effects()) == [1, 2, 3]


# (scenario, point, which time, database); `crash_everywhere` has all of them.
ELSEWHERE = [
    ("background", "before-conclude", 1, "postgres"),
    ("background", "after-call", 2, "postgres"),
    ("foreground", "after-begin", 1, "sqlite"),
    ("foreground", "after-append", 2, "postgres"),
    ("approval", "after-answer", 1, "sqlite"),
    ("approval", "before-call", 1, "postgres"),
    ("cancel", "before-conclude", 1, "sqlite"),
    ("compaction", "after-append", 2, "sqlite"),
    ("sweep", "before-commit", 16, "sqlite"),
]


@pytest.fixture(scope="module")
def other_park(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Park]:
    """What does not die, for the scenarios."""
    with park(tmp_path_factory.mktemp("park"), script=SCRIPT) as found:
        yield found


@pytest.mark.parametrize(("name", "point", "number", "database"), ELSEWHERE, ids=str)
def test_what_a_crash_may_cut_short(
    other_park: Park, tmp_path: Path, request: pytest.FixtureRequest, name: str, point: str, number: int, database: str
) -> None:
    server = request.getfixturevalue("postgres") if database == "postgres" else None
    there = new_world(other_park, tmp_path, server)
    assert crash(there, SCENARIOS[name], point, number) == []


def test_a_run_that_ends_every_process_is_given_up(there: World) -> None:
    seen = Seen()
    with there.gateway("before-append", "1") as (url, _):
        seen.read("POST", f"{url}/v1/responses", json=there.body(background=True))
    seen.response_id = seen.response_id or only_response(there.home / "history.db")
    assert seen.response_id is not None
    # It may claim the run, and die of it, before it listens.
    with there.gateway("before-append", "1", ready=False, responses__max_takeovers=1) as (_, running):
        running.wait(120)
    with there.gateway(responses__max_takeovers=1) as (url, _):
        response = ended(url, seen.response_id)
        assert (response["status"], response["error"]["code"]) == ("failed", "run_crashed")
        assert verdict(there, url, seen) == []
