"""Laws of the routing room."""

from __future__ import annotations

from hypothesis import event, given
from hypothesis import strategies as st

from app.routing.breaker import Breaker, Circuit, Rules, admits, step

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
