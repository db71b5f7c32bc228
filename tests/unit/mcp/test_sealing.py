"""Secrets at rest: nobody reads them elsewhere, under another key, or after they were touched."""

from pathlib import Path

import pytest

from app.mcp.sealing import KeySealer, master_key
from app.turn.errors import Unavailable

KEY = bytes(range(32))


def test_what_is_sealed_opens_where_it_was_sealed() -> None:
    sealer = KeySealer(lambda: KEY)
    sealed = sealer.seal("t", "p", b"secret")
    assert b"secret" not in sealed
    assert sealer.open("t", "p", sealed) == b"secret"
    assert sealer.seal("t", "p", b"secret") != sealed


@pytest.mark.parametrize(("tenant", "place"), [("u", "p"), ("t", "q"), ("t|p", ""), ("", "t|p")])
def test_and_nowhere_else(tenant: str, place: str) -> None:
    sealer = KeySealer(lambda: KEY)
    with pytest.raises(Unavailable):
        sealer.open(tenant, place, sealer.seal("t", "p", b"secret"))


def test_every_byte_counts_and_so_does_the_key() -> None:
    sealer = KeySealer(lambda: KEY)
    sealed = sealer.seal("t", "p", b"secret")
    for index in range(len(sealed)):
        touched = bytes([*sealed[:index], sealed[index] ^ 1, *sealed[index + 1 :]])
        with pytest.raises(Unavailable):
            sealer.open("t", "p", touched)
    for cut in (b"", sealed[:1], sealed[:12]):
        with pytest.raises(Unavailable):
            sealer.open("t", "p", cut)
    with pytest.raises(Unavailable):
        KeySealer(lambda: KEY[::-1]).open("t", "p", sealed)


def test_the_key_is_made_once_for_nobody_else_to_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secrets.key"
    key = master_key(path)
    assert master_key(path) == key
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_that_cannot_be_had_is_an_error_of_whoever_needs_it(tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    path.write_text("beef")
    with pytest.raises(Unavailable, match="shorter"):
        KeySealer(lambda: master_key(path)).seal("t", "p", b"x")
