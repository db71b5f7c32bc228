"""`shepherd tenant` and `shepherd key` on a database of their own."""

from pathlib import Path

import pytest

from app.cli.main import main


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    out = capsys.readouterr()
    return code, out.out, out.err


def test_a_tenant_and_its_key_are_made_listed_and_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "tenant", "create", "acme") == (0, "Made the tenant acme.\n", "")
    code, out, _ = said(capsys, "key", "create", "acme", "ci", "--scope", "data", "--scope", "admin")
    assert code == 0
    key_id, secret = out.split()[3], out.splitlines()[1]
    assert secret.startswith("shp_")
    _, listed, _ = said(capsys, "key", "list")
    assert key_id in listed
    assert "data,admin" in listed
    assert secret not in listed
    assert said(capsys, "key", "revoke", key_id)[0] == 0
    assert said(capsys, "key", "revoke", key_id)[0] == 1
    assert said(capsys, "tenant", "revoke", "acme")[0] == 0
    assert said(capsys, "tenant", "list")[1].splitlines()[1].split()[0] == "acme"


def test_what_cannot_be_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "key", "create", "nobody", "ci")
    assert (code, err) == (1, "shepherd: There is no tenant 'nobody'.\n")
    with pytest.raises(SystemExit):
        main(["tenant", "create", "Not A Name"])
    with pytest.raises(SystemExit):
        main(["key", "create", "acme", "ci", "--expires-in", "soon"])
