"""The mutation check itself: its mutants still fit the machine, and the laws it runs can fail."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

CHECK = runpy.run_path(str(Path(__file__).with_name("mutate.py")))


def test_every_mutant_still_fits_the_machine() -> None:
    texts = {mutant.file: (CHECK["ROOT"] / mutant.file).read_text("utf-8") for mutant in CHECK["MUTANTS"]}
    misfits = [
        mutant.wrong
        for mutant in CHECK["MUTANTS"]
        if texts[mutant.file].count(mutant.old) != 1 or mutant.old == mutant.new
    ]
    assert misfits == []


@pytest.mark.slow
def test_the_laws_kill_a_mutant_and_judge_the_copy_it_is_in() -> None:
    assert CHECK["on_trial"]() == str(CHECK["MACHINE"])
    assert CHECK["outcome"](CHECK["MUTANTS"][0]) == "killed"
