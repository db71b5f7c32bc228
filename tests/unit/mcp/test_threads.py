"""Which responses share what a server remembers."""

from app.mcp.sessions import Owner
from app.mcp.threads import Threads
from app.responses.continuation import Continuation

ANN = Owner("t", "ann")


def after(previous: str | None, response: str | None) -> Continuation:
    return Continuation(response=response, previous=previous)


def test_a_chain_is_one_thread_and_another_chain_another() -> None:
    threads = Threads()
    one = threads.of(ANN, after(None, "r1"))
    other = threads.of(ANN, after(None, "s1"))
    assert one != other
    assert threads.of(ANN, after("r1", "r2")) == one
    assert threads.of(ANN, after("s1", "s2")) == other
    assert threads.of(ANN, after("r2", "r3")) == one


def test_a_run_that_begins_again_has_the_thread_it_had() -> None:
    threads = Threads()
    one = threads.of(ANN, after(None, "r1"))
    assert threads.of(ANN, after(None, "r1")) == one
    assert threads.of(ANN, after("r1", "r2")) == one
    assert threads.of(ANN, after("r1", "r2")) == one


def test_a_second_branch_is_a_thread_of_its_own() -> None:
    threads = Threads()
    one = threads.of(ANN, after(None, "r1"))
    assert threads.of(ANN, after("r1", "r2")) == one
    branch = threads.of(ANN, after("r1", "b2"))
    assert branch != one
    assert threads.of(ANN, after("b2", "b3")) == branch
    assert threads.of(ANN, after("r2", "r3")) == one


def test_whoever_only_looks_takes_nothing_over() -> None:
    threads = Threads()
    assert threads.of(ANN, after(None, None)) is None
    one = threads.of(ANN, after(None, "r1"))
    assert threads.of(ANN, after("r1", None)) == one
    assert threads.of(ANN, after("x", None)) is None
    assert threads.of(ANN, after("r1", "r2")) == one


def test_nobody_takes_over_somebody_elses() -> None:
    threads = Threads()
    one = threads.of(ANN, after(None, "r1"))
    for other in (Owner("t", "bob"), Owner("u", "ann")):
        assert threads.of(other, after("r1", "r2")) != one
    assert threads.of(ANN, after("r1", "r3")) == one


def test_a_conversation_is_one_thread() -> None:
    threads = Threads()
    found = {threads.of(ANN, Continuation(response=f"r{n}", conversation="c")) for n in range(3)}
    assert len(found) == 1
    assert threads.of(ANN, Continuation(response="r9", conversation="d")) not in found


def test_the_least_recent_are_forgotten() -> None:
    threads = Threads(most=2)
    one = threads.of(ANN, after(None, "r1"))
    for number in range(3):
        threads.of(ANN, after(None, f"s{number}"))
    assert threads.of(ANN, after("r1", "r2")) != one
