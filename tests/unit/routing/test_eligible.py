"""Who serves a model is worked out once, and anew when the fleet is different."""

from __future__ import annotations

from app.responses.ports import ModelInfo
from app.routing.breaker import Rules
from app.routing.eligible import ServedModels
from app.routing.ledger import Ledger
from app.routing.registry import Snapshot, Worker

M = (ModelInfo("m", 1, "me"),)


def worker(name: str, **fields: object) -> Worker:
    given = {"healthy": True, "catalog": "listed", "models": M, **fields}
    return Worker(id=name, url=name, **given)


def test_only_those_that_may_be_given_turns() -> None:
    snapshot = Snapshot(
        (
            worker("a", healthy_at=3.0),
            worker("b", healthy=False, healthy_at=9.0),
            worker("c", draining=True),
            worker("d", catalog="any", models=(), healthy_at=5.0),
            worker("e", models=(ModelInfo("other", 1, "me"),)),
        )
    )
    served = ServedModels()
    serving = served.of(snapshot, "m")
    assert (serving.ids, serving.youngest_at) == (("a", "d"), 5.0)
    assert list(serving.by_id) == ["a", "d"]
    assert served.of(snapshot, "m") is serving
    assert served.of(snapshot, "other").ids == ("d", "e")
    assert served.of(Snapshot((worker("a"),)), "m").ids == ("a",)
    assert served.of(Snapshot(), "m").ids == ()


def test_models_that_anybody_may_think_of_take_no_room_for_ever() -> None:
    snapshot, served = Snapshot((worker("a"),)), ServedModels()
    for number in range(3000):
        served.of(snapshot, f"model {number}")
    assert len(served._known) < 2000
    assert served.of(snapshot, "m").ids == ("a",)


def test_a_ledger_remembers_circuits_that_are_not_as_at_first() -> None:
    ledger = Ledger(Rules(failures=2, successes=1, open_secs=10.0, window_secs=60.0))
    for outcome in ("good", "bad", "good"):
        ledger.begin("a", 0.0)
        ledger.end("a", outcome, 0.0, 0.0)
    assert (ledger.shut(0.0), ledger._breakers) == (frozenset(), {})
    for now in (1.0, 2.0):
        ledger.begin("a", now)
        ledger.end("a", "bad", now, now)
    assert ledger.shut(3.0) == {"a"}
    assert ledger.shut(12.0) == frozenset()
    ledger.begin("a", 12.0)
    assert ledger.shut(12.0) == {"a"}
    ledger.end("a", "good", 12.0, 13.0)
    assert ledger._breakers == {}
    assert Ledger(None).shut(0.0) == frozenset()
