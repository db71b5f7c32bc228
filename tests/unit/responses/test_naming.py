"""The names the model sees."""

from __future__ import annotations

import itertools
import re

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from app.responses.naming import offered
from app.turn.items import ToolSpec

SCHEMA = msgspec.Raw(b'{"type":"object"}')
LEGAL = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def spec(name: str, **fields: object) -> ToolSpec:
    return ToolSpec(name, SCHEMA, **fields)


def names(client: list[str], listings: dict[str, list[str]]) -> list[str]:
    tools = offered([spec(name) for name in client], {label: [spec(n) for n in own] for label, own in listings.items()})
    return [tool.name for tool in tools]


def test_names_that_are_free_are_kept() -> None:
    assert names(["look"], {"b": ["two", "one"], "a": ["zero"]}) == ["look", "one", "two", "zero"]


def test_a_servers_tool_carries_its_label_and_own_name_and_everything_else() -> None:
    described = spec("add", description="adds", strict=True, annotations=msgspec.Raw(b'{"readOnlyHint":true}'))
    (tool,) = offered([], {"s": [described]})
    assert tool == msgspec.structs.replace(described, tool="add", server_label="s")


def test_client_tools_are_left_as_they_are() -> None:
    tools = (spec("add", description="mine"), spec("look"))
    assert offered(tools, {"s": [spec("add")]})[:2] == tools


def test_a_name_two_servers_claim_belongs_to_neither() -> None:
    assert names([], {"a": ["add", "one"], "b": ["add"]}) == ["a__add", "one", "b__add"]


def test_a_servers_tool_gives_way_to_the_clients() -> None:
    assert names(["add"], {"a": ["add"]}) == ["add", "a__add"]


def test_what_a_collision_is_resolved_to_may_collide_itself() -> None:
    assert names(["a__add"], {"a": ["add"], "b": ["add"]}) == ["a__add", "a__add__2", "b__add"]
    assert len(set(names([], {"a": ["add"], "b": ["add", "a__add"]}))) == 3


def test_names_engines_refuse_are_cleaned_without_meeting_each_other() -> None:
    cleaned = names([], {"s": ["see it", "see.it", "see/it", ""]})
    assert len(set(cleaned)) == 4
    assert all(LEGAL.match(name) for name in cleaned)


def test_long_names_are_cut_and_stay_apart() -> None:
    cut = names([], {"s": ["x" * 64, "x" * 65, "x" * 66]})
    assert cut[0] == "x" * 64
    assert len(set(cut)) == 3
    assert all(LEGAL.match(name) for name in cut)


def test_the_servers_own_name_survives_all_cleaning() -> None:
    tools = offered([], {"label with spaces": [spec("see it")], "b": [spec("see it"), spec("y" * 99)]})
    assert [tool.tool for tool in tools] == ["see it", "see it", "y" * 99]


def test_a_listing_that_was_named_before_is_named_again_from_the_servers_own_names() -> None:
    once = offered([], {"a": [spec("add")], "b": [spec("add")]})
    again = offered([], {"a": [once[0]], "b": [once[1]]})
    assert again == once


labels = st.sampled_from(["a", "b", "a__add", "Ä b", "x" * 70])
own_names = st.one_of(st.sampled_from(["add", "a__add", "a__add__2", "see it", ""]), st.text("aZ9_- .ß/", max_size=70))
catalogues = st.dictionaries(labels, st.lists(own_names, unique=True, max_size=5), max_size=4)
client_names = st.lists(st.sampled_from(["add", "a__add", "look", "b__add"]), unique=True)


@given(client_names, catalogues)
def test_names_are_legal_and_unique_and_every_tool_is_there(client: list[str], listings: dict[str, list[str]]) -> None:
    tools = offered(
        [spec(name) for name in client], {label: [spec(name) for name in own] for label, own in listings.items()}
    )
    assert len({tool.name for tool in tools}) == len(tools)
    assert all(LEGAL.match(tool.name) for tool in tools)
    assert [tool.name for tool in tools[: len(client)]] == client
    assert [(tool.server_label, tool.tool) for tool in tools[len(client) :]] == [
        (label, name) for label, own in listings.items() for name in sorted(own)
    ]


@given(client_names, catalogues, st.randoms())
def test_a_servers_order_does_not_matter(client: list[str], listings: dict[str, list[str]], chance: object) -> None:
    shuffled = {label: chance.sample(own, len(own)) for label, own in listings.items()}
    assert names(client, shuffled) == names(client, listings)


def test_names_do_not_depend_on_the_process() -> None:
    """A digest, not `hash()`: replicas and restarts must agree."""
    assert names([], {"s": ["see it"]}) == ["see_it_f1136c1c"]


def test_two_tools_of_one_server_with_one_name_are_both_offered() -> None:
    for order in itertools.permutations(["add", "add", "sub"]):
        assert names([], {"s": list(order)}) == ["s__add", "s__add__2", "sub"]
