"""What an item is, is told from how it begins, and from all of it where it begins otherwise."""

from __future__ import annotations

import pytest
from msgspec import Raw

from app.dialects.openai_responses import kinds
from app.dialects.openai_responses.items import input_items
from app.dialects.openai_responses.kinds import kind_of
from app.dialects.openai_responses.wire import CreateResponse
from app.turn.ids import RandomIds
from app.turn.items import StoredItem

NESTED = b'{"id":"msg_1","content":[{"id":"p","type":"input_text"}],"role":"user"}'


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'{"id":"msg_1","type":"message","role":"user"}', "message"),
        (b'{"id":"x","type":"of_later"}', "of_later"),
        (b'{"type":"reasoning","id":"rs_1"}', "reasoning"),
        (b'{ "id": "fc_1", "type": "function_call" }', "function_call"),
        (b'{"id":"a\\"b","type":"message"}', "message"),
        (b'{"id":"x","type":"\\u006dessage"}', "message"),
        (b'{"id":"x","type":"new thing"}', "new thing"),
        (b'{"id":"x","type":null}', None),
        (NESTED, None),
    ],
)
def test_the_type_is_the_items_own_wherever_it_stands(raw: bytes, kind: str | None) -> None:
    assert kind_of(StoredItem("x", Raw(raw))) == kind


def test_what_clients_give_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [
        Raw(b'{"content":"hello","role":"user"}'),
        Raw(b'{"output":"1","call_id":"c","type":"function_call_output"}'),
    ]
    items = input_items(CreateResponse(model="m", input=given), RandomIds())
    monkeypatch.delattr(kinds, "_head")
    assert [kind_of(item) for item in items] == ["message", "function_call_output"]


def test_of_a_name_that_a_client_gives_twice_the_last_counts() -> None:
    given = [Raw(b'{"type":"message","role":"user","content":"hello","type":"later"}')]
    (item,) = input_items(CreateResponse(model="m", input=given), RandomIds())
    assert kind_of(item) == "later"
