"""The closed loop: who asks when, and that every router is measured on the same turns."""

from __future__ import annotations

from app.simulator.service import Request, ServiceEngine, ServiceModel
from bench.crowd import Crowd, one_by_one
from bench.routing import build
from bench.routing_replay import Replay, glided, gliding
from bench.sessions import Habits, Session, Spread, session

LIVE, COUNTED, BLOCK = 4, 6, 512
SHORT = Habits(turns=Spread(4, 0.8), resumed=0.1, answer=Spread(60, 1.0))


def short(number: int) -> Session:
    return session(number, SHORT)


def lived(router: str, workers: int = 2) -> Crowd:
    model = ServiceModel()
    engines = [ServiceEngine(model) for _ in range(workers)]
    crowd = Crowd(short, LIVE, COUNTED, BLOCK)
    Replay(crowd.begin(), engines, build(router, engines, model), crowd.ended).run()
    return crowd


def asked(requests: list[Request]) -> list[tuple[int, ...]]:
    return sorted((request.tokens, request.output, *request.keys) for request in requests)


def test_every_router_is_asked_the_same_turns_to_the_end() -> None:
    every = asked(one_by_one([short(number) for number in range(COUNTED)], BLOCK))
    for router in ("smg_tree", "ours", "round_robin"):
        crowd = lived(router)
        assert asked(crowd.counted) == every
        assert all(request.ended for request in crowd.counted)


def test_a_turn_comes_a_pause_after_the_answer_before() -> None:
    crowd = lived("ours")
    for number in range(COUNTED):
        one = short(number)
        keys = one.keys(0, one.preamble + BLOCK, BLOCK)[-1]
        own = sorted((r for r in crowd.counted if keys in r.keys), key=lambda request: request.arrived)
        turns = [turn for turn in one.turns if turn.version == 0]
        assert len(own) == len(turns)
        for before, request, turn in zip(own, own[1:], turns[1:], strict=False):
            assert request.arrived == before.ended + turn.pause


def test_as_many_as_were_said_are_alive_until_the_last_that_counts_is_over() -> None:
    crowd = Crowd(short, LIVE, COUNTED, BLOCK)
    alive = crowd.begin()
    now = 0.0
    assert len(alive) == LIVE
    while any(not request.ended for request in crowd.counted) or len(crowd.counted) < COUNTED:
        assert len(alive) == LIVE
        now += 1
        request = alive.pop(0)
        request.ended = now
        alive += crowd.ended(request)
    over = sum(len(short(number).turns) for number in range(COUNTED))
    assert sum(bool(request.ended) for request in crowd.counted) == over
    for request in alive:
        request.ended = now
        assert not crowd.ended(request)


def test_many_quiet_steps_at_once_are_what_they_are_one_by_one() -> None:
    model = ServiceModel()
    engines = [ServiceEngine(model) for _ in range(2)]
    for engine in engines:
        for number in range(3):
            engine.submit(Request(number, 0.0, 3000, 400, [number * 9 + place for place in range(5)]))
        while engine.waiting or engine.reading or not engine.writing:
            engine.begin()
            engine.finish(0.0)
    slow, fast = engines
    ends = [0.0]
    for _ in range(300):
        ends.append(ends[-1] + slow.begin())
        slow.finish(0.0)
    for steps in (1, 2, 77, 300):
        assert abs(gliding(fast, steps) - ends[steps]) < 1e-9
        assert glided(fast, ends[steps] - 1e-4) == steps
        assert glided(fast, ends[steps]) == steps
        assert glided(fast, ends[steps] + 1e-4) == steps + 1
