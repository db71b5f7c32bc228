"""The printed ratios are those of the rows."""

from __future__ import annotations

import json

from bench.ratios import loaded, read, table


def rows(scenario: str, **mean: float) -> list[str]:
    return [
        json.dumps(
            {
                **dict.fromkeys(("p50", "p90", "p99", "e2e"), value),
                "mean": value,
                "scenario": scenario,
                "router": router,
                "hit": 0.4,
                "ideal": 0.5,
            }
        )
        for router, value in mean.items()
    ]


def test_geometric_means_are_over_what_there_is_and_it_is_said_what_is_not() -> None:
    found = read([*rows("a", smg_tree=4, ours=2, alone=1), *rows("b", smg_tree=9, ours=0.5, llm_d=2)])
    assert list(loaded(found, ("a", "b", "c"))) == [
        "Without c.",
        "",
        "| replay | smg_tree (s) | ours |",
        "|---|---|---|",
        "| a | 4.00, 4.00, 4.00 | 2.00, 2.00, 2.00 |",
        "| b | 9.00, 9.00, 9.00 | 18.00, 18.00, 18.00 |",
        "| geometric mean |  | 6.00, 6.00, 6.00 |",
    ]


def test_the_last_row_counts() -> None:
    found = read([*rows("a", smg_tree=4, ours=2), *rows("a", ours=1)])
    assert list(table(found))[-1] == "|  | ours | 0.80 | 1.00 | 1.00 | 1.00 | 1.00 | 1.00 | - | 4.00, 4.00, 4.00 |"


def test_without_smgs_tree_there_is_nothing_to_compare_with():
    assert read([json.dumps({"scenario": "a", "router": "ours"})]) == {}
