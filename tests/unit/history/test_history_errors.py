"""Foreign exceptions become ours, and only those."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import OperationalError

from app.history.errors import available, storable
from app.turn.errors import NotFound, Unavailable


@pytest.mark.parametrize(
    "foreign",
    [OperationalError("SELECT 1", None, Exception("database is locked")), OSError("gone"), TimeoutError("slow")],
)
def test_the_databases_faults_are_unavailable(foreign: Exception) -> None:
    with pytest.raises(Unavailable) as caught, available():
        raise foreign
    assert caught.value.code == "history_unavailable"
    assert caught.value.__cause__ is foreign


@pytest.mark.parametrize("ours", [NotFound("x"), KeyError("a bug"), asyncio.CancelledError()])
def test_everything_else_stays_what_it_is(ours: BaseException) -> None:
    with pytest.raises(type(ours)) as caught, available():
        raise ours
    assert caught.value is ours


@pytest.mark.parametrize(
    ("value", "fits"),
    [("", True), ("msg_1", True), ("é" * 512, True), ("é" * 513, False), ("a\x00", False), ("\udc80", False)],
)
def test_keys_any_database_can_hold(value: str, fits: bool) -> None:
    assert storable(value) is fits
