"""The table of what is supported says something about everything the code knows, and nothing that is not so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import msgspec
import pytest

from app.dialects.openai_responses import not_yet
from app.dialects.openai_responses.check_tables import KINDS
from app.dialects.openai_responses.context import READ
from app.dialects.openai_responses.decode import decode_create
from app.dialects.openai_responses.items import _ITEMS
from app.dialects.openai_responses.local_tools import EXECUTED_BY_CLIENT
from app.dialects.openai_responses.support import CHOICES, INCLUDE, ITEMS, REQUEST, TOOLS, Line
from app.dialects.openai_responses.tools import HOSTED, read_tools
from app.dialects.openai_responses.wire import CreateResponse, Include
from app.turn.errors import InvalidRequest

SILENT = {"program", "program_output"}


def names(lines: Iterable[Line]) -> list[str]:
    return [line.name for line in lines]


def test_every_field_of_a_request_has_its_line_and_no_other() -> None:
    fields = [field.encode_name for field in msgspec.structs.fields(CreateResponse)]
    assert sorted(names(REQUEST)) == sorted(set(fields) - {"extra"})


def test_every_kind_of_tool_has_its_line() -> None:
    known = {"function", "custom", "namespace", "mcp", "tool_search", *EXECUTED_BY_CLIENT, *HOSTED}
    assert sorted(names(TOOLS)) == sorted({*known, "programmatic_tool_calling"})


def test_every_kind_of_item_has_its_line() -> None:
    known = {*READ, *_ITEMS, "item_reference", "compaction_trigger"}
    assert sorted(names(ITEMS)) == sorted(known | SILENT)
    assert {*KINDS} <= {*names(ITEMS)}


def test_everything_that_can_be_included_has_its_line() -> None:
    assert sorted(names(INCLUDE)) == sorted(get_args(Include))


def test_what_is_refused_or_partly_there_is_what_the_code_refuses() -> None:
    refused = {path.split(".")[0] for path, _, _ in not_yet.REQUEST}
    assert refused == {line.name for line in REQUEST if line.status in {"refused", "partly"}}


@pytest.mark.parametrize("line", [line for line in TOOLS if line.status == "refused"], ids=lambda line: line.name)
def test_tools_that_are_refused_are_refused_by_name(line: Line) -> None:
    raw = msgspec.Raw(msgspec.json.encode({"type": line.name}))
    with pytest.raises(InvalidRequest) as refused:
        read_tools([raw])
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "tools[0].type")


GIVEN = {
    "background_options": {"completion_window": "2h"},
    "access_programs": {"cyber": "standard"},
    "moderation": {"model": "m"},
}


@pytest.mark.parametrize("name", [line.name for line in REQUEST if line.status == "refused"])
def test_fields_that_are_refused_are_refused_by_name(name: str) -> None:
    body = msgspec.json.encode({"model": "m", "input": "x", name: GIVEN[name]})
    with pytest.raises(InvalidRequest) as refused:
        decode_create(body)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", name)


def test_every_choice_has_a_status() -> None:
    assert {"auto", "none", "required", "function", "custom", "mcp", "allowed_tools"} <= {*names(CHOICES)}
