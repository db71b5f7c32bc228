"""Laws of the routing room."""

from __future__ import annotations

from hypothesis import event, given
from hypothesis import strategies as st

from app.routing.breaker import Breaker, Circuit, Rules, admits, step
from app.routing.index import BlockIndex
from app.routing.ledger import Ledger

RULES = Rules(failures=3, successes=2, open_secs=10.0, window_secs=20.0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["begins", "good", "bad", "bad", "void"]), st.sampled_from([0.0, 1.0, 10.0, 21.0])),
        max_size=60,
    )
)
def test_the_breaker_opens_only_for_failures_in_a_row_and_never_stays_shut(moves):
    breaker, now, row, row_since = Breaker(), 0.0, 0, 0.0
    for move, pause in moves:
        now += pause
        if move == "begins" and not admits(breaker, now, RULES):
            continue
        before = breaker
        breaker = step(breaker, move, now, RULES)
        event(f"{before.circuit.value} -> {breaker.circuit.value}")
        if before.circuit is Circuit.CLOSED:
            if move == "good":
                row = 0
            if move == "bad":
                fresh = row == 0 or now - row_since > RULES.window_secs
                row, row_since = (1, now) if fresh else (row + 1, row_since)
            assert (breaker.circuit is Circuit.OPEN) == (row >= RULES.failures)
        else:
            row = 0
        if breaker.circuit is Circuit.OPEN:
            # Nothing goes through at once, and something always does in the end.
            assert not admits(breaker, breaker.since + RULES.open_secs - 0.001, RULES)
            assert admits(breaker, breaker.since + RULES.open_secs, RULES)
        if breaker.circuit is Circuit.HALF_OPEN:
            assert admits(breaker, now, RULES) != breaker.trial
            assert breaker.count < RULES.successes
            if breaker.trial:
                # A trial always ends in one of these, and then the next turn may go.
                assert step(breaker, "bad", now, RULES).circuit is Circuit.OPEN
                after = step(breaker, "good", now, RULES)
                assert after.circuit is Circuit.CLOSED or admits(after, now, RULES)


BREAKERS = st.builds(
    Breaker,
    circuit=st.sampled_from(list(Circuit)),
    count=st.integers(0, 1),
    since=st.floats(0.0, 100.0),
    trial=st.booleans(),
)
RULE = st.builds(
    Rules,
    failures=st.integers(1, 4),
    successes=st.integers(1, 4),
    open_secs=st.floats(0.5, 30.0),
    window_secs=st.floats(0.5, 30.0),
)


@given(BREAKERS, RULE, st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_waiting_never_shuts_a_worker_out(breaker, rules, at, pause):
    assert not admits(breaker, at, rules) or admits(breaker, at + pause, rules)


@given(BREAKERS, RULE, st.sampled_from(["good", "bad", "void"]), st.floats(0.0, 100.0))
def test_outcomes_do_not_move_an_open_circuit_nor_those_of_older_turns_a_half_open_one(breaker, rules, outcome, at):
    now = breaker.since + at
    after = step(breaker, outcome, now, rules, begun=breaker.since - 0.25)
    if breaker.circuit is not Circuit.CLOSED:
        assert after == breaker
    if outcome == "void" and breaker.circuit is not Circuit.HALF_OPEN:
        assert after == breaker


@given(
    RULE,
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "begin", "end"]),
            st.sampled_from(["good", "bad", "void"]),
            st.integers(0, 9),
            st.sampled_from([0.0, 0.25, 1.0, 31.0]),
        ),
        max_size=80,
    ),
)
def test_a_worker_in_doubt_has_one_trial_at_a_time_and_closes_by_good_ones_alone(rules, moves):
    ledger, now = Ledger(rules), 0.0
    turns, trials, good = list[float](), list[float](), 0
    for move, outcome, which, pause in moves:
        now += pause
        before = ledger.breaker("w")
        if move == "begin":
            if "w" in ledger.shut(now):
                continue
            ledger.begin("w", now)
            if before.circuit is Circuit.CLOSED:
                turns.append(now)
            else:
                good = 0 if before.circuit is Circuit.OPEN else good
                # A trial is told from older turns by when it began.
                trials.append(now)
                assert len(trials) == 1
                assert "w" in ledger.shut(now)
        elif turns or trials:
            number = which % (len(turns) + len(trials))
            is_trial = number >= len(turns)
            begun = trials.pop() if is_trial else turns.pop(number)
            ledger.end("w", outcome, begun, now)
            after = ledger.breaker("w")
            event(f"{before.circuit.value} {'trial' if is_trial else 'turn'} {outcome} -> {after.circuit.value}")
            if before.circuit is Circuit.HALF_OPEN and begun < before.since:
                assert after == before
            elif before.circuit is Circuit.HALF_OPEN:
                good += outcome == "good"
                assert (after.circuit is Circuit.CLOSED) == (good >= rules.successes and outcome == "good")
                assert (after.circuit is Circuit.OPEN) == (outcome == "bad")
        assert ledger.inflight("w") == len(turns) + len(trials)


@given(RULE, st.lists(st.tuples(st.sampled_from(["good", "bad", "void"]), st.floats(0.0, 40.0)), max_size=30))
def test_a_worker_that_is_well_again_is_used_as_before(rules, history):
    ledger, now = Ledger(rules), 0.0
    for outcome, pause in history:
        now += pause
        if "w" not in ledger.shut(now):
            ledger.begin("w", now)
            ledger.end("w", outcome, now, now)
    # Clearly: sums of floats are rounded.
    now += rules.open_secs * 1.001
    for _ in range(rules.successes):
        assert "w" not in ledger.shut(now)
        ledger.begin("w", now)
        ledger.end("w", "good", now, now)
    assert ledger.breaker("w") == Breaker()


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=5),
    st.integers(1, 40),
    st.integers(0, 50),
)
def test_how_far_each_worker_holds_a_prompt_is_found_wherever_one_looks_first(depths, length, likely):
    index, keys = BlockIndex(1000), [7 * number + 1 for number in range(length)]
    for slot, depth in enumerate(depths):
        index.store(slot, keys[:depth])
    held = {slot: min(depth, length) for slot, depth in enumerate(depths) if depth}
    assert index.depths(keys, likely) == held
