"""Long contexts, sealed thoughts and strict answers, through the whole service."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from app.responses.sealing import AesTokens, TenantTokens
from app.turn.errors import GatewayError, InvalidRequest, NotFound
from app.turn.usage import Usage
from tests.support.scripted import Scripted, calls, fails, says, thinks

USER = {"role": "user", "content": "go"}
TRIGGER = {"type": "compaction_trigger"}
FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


# ── summaries ─────────────────────────────────────────────────────────────────


async def test_a_trigger_makes_exactly_one_compaction_item() -> None:
    made = Scripted()
    got = await made.ask(says("the gist"), input=[USER, {"role": "assistant", "content": "long"}, TRIGGER], store=False)
    (item,) = got.output
    assert item["type"] == "compaction"
    assert "the gist" not in item["encrypted_content"]
    assert got.kinds[2:5] == [
        "response.output_item.added",
        "response.compaction.compacting",
        "response.output_item.done",
    ]
    assert made.last.tool_choice == "none"
    await made.ask(says("yes"), input=[USER, item, {"role": "user", "content": "on"}], store=False)
    assert made.told() == [
        ("user", "go"),
        ("user", "Summary of the conversation before this point:\n\nthe gist"),
        ("user", "on"),
    ]


async def test_a_trigger_is_the_last_item() -> None:
    with pytest.raises(InvalidRequest) as refused:
        await Scripted().ask(input=[TRIGGER, USER])
    assert refused.value.param == "input[0].type"


async def test_a_stored_conversation_goes_on_from_its_summary() -> None:
    made = Scripted()
    first = await made.ask(calls(("look", {})), input="go", tools=[FUNCTION])
    output = {"type": "function_call_output", "call_id": "call_1", "output": "x" * 50}
    second = await made.ask(
        says("gist"), input=[output, TRIGGER], tools=[FUNCTION], previous_response_id=first.body["id"]
    )
    await made.ask(says("ok"), input="on", previous_response_id=second.body["id"])
    assert [role for role, _ in made.told()] == ["user", "user", "user"]


async def test_a_context_that_reaches_the_threshold_is_summarised_before_the_next_turn() -> None:
    made = Scripted()
    made.tools.add("s", "read")
    made.tools.results["read"] = lambda _: "x" * 8000
    management = [{"type": "compaction", "compact_threshold": 1500}]
    tools = [{"type": "mcp", "server_label": "s", "server_url": "http://x.example/", "require_approval": "never"}]
    got = await made.ask(
        calls(("read", {})), says("gist"), says("done"), input="go", tools=tools, context_management=management
    )
    assert got.types == ["mcp_list_tools", "mcp_call", "compaction", "message"]
    assert [role for role, _ in made.told()] == ["user", "user"]
    assert got.body["usage"]["output_tokens"] == 15
    whole = made.told()
    await made.ask(says("x"), input="on", tools=tools, previous_response_id=got.body["id"])
    assert made.told()[: len(whole)] == whole


async def test_the_engines_own_count_decides_where_there_is_one() -> None:
    made = Scripted()
    made.tools.add("s", "read")
    management = [{"type": "compaction", "compact_threshold": 5000}]
    tools = [{"type": "mcp", "server_label": "s", "server_url": "http://x.example/", "require_approval": "never"}]
    turns = [calls(("read", {}), usage=Usage(4990, 0, 20)), says("gist"), says("done")]
    got = await made.ask(*turns, input="go", tools=tools, context_management=management)
    assert "compaction" in got.types


async def test_a_summary_nobody_wrote_fails_the_response() -> None:
    made = Scripted()
    with pytest.raises(GatewayError, match="no summary"):
        await made.ask(says(" "), input=[USER, TRIGGER])


async def test_a_context_too_long_is_shortened_until_it_fits() -> None:
    made = Scripted()
    history: list[dict[str, Any]] = [{"role": "developer", "content": "be brief"}]
    for number in range(8):
        history += [
            {"role": "user", "content": f"q{number} " * 20},
            {"role": "assistant", "content": f"a{number} " * 20},
        ]
    turns = [fails("context_length_exceeded"), fails("context_length_exceeded"), says("ok")]
    got = await made.ask(*turns, input=[*history, USER], truncation="auto")
    assert got.body["status"] == "completed"
    lengths = [len(asked.items) for asked in made.model.asked]
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) == 3
    told = made.told()
    assert told[0] == ("developer", "be brief")
    assert told[-1] == ("user", "go")


async def test_without_truncation_a_context_too_long_is_an_error() -> None:
    made = Scripted()
    with pytest.raises(GatewayError, match="context_length") as refused:
        await made.ask(fails("context_length_exceeded"), input=[USER])
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(GatewayError, match="context_length"):
        await made.ask(fails("context_length_exceeded"), input=[USER], truncation="auto")


# ── sealed thoughts ───────────────────────────────────────────────────────────

SEALED = ["reasoning.encrypted_content"]


async def test_thoughts_are_sealed_when_asked_for_and_opened_again() -> None:
    made = Scripted()
    got = await made.ask([*thinks("secret plan"), *says("hi")], input="go", include=SEALED, store=False)
    item = got.item("reasoning")
    assert item["encrypted_content"].startswith("shp1.")
    bare = {"type": "reasoning", "id": item["id"], "summary": [], "encrypted_content": item["encrypted_content"]}
    await made.ask(says("x"), input=[USER, bare, *got.output[1:], USER], store=False)
    assert ("reasoning", "secret plan") in made.told()
    plain = await made.ask([*thinks("hm"), *says("hi")], input="go")
    assert "encrypted_content" not in plain.item("reasoning")


@pytest.mark.parametrize("kind", ["reasoning", "compaction"])
async def test_what_was_sealed_elsewhere_is_refused_by_place(kind: str) -> None:
    made = Scripted()
    got = await made.ask([*thinks("secret plan"), *says("hi")], input="go", include=SEALED, tenant="a")
    token = got.item("reasoning")["encrypted_content"]
    for foreign in ("gAAAAfromanother", token, token[:-2], "shp1.", "shp1.ünï"):
        item = {"type": kind, "summary": [], "encrypted_content": foreign}
        with pytest.raises(InvalidRequest) as refused:
            await made.ask(input=[USER, item], tenant="b")
        assert refused.value.code == "invalid_encrypted_content"
        assert refused.value.param == "input[1].encrypted_content"


def test_a_token_opens_for_its_tenant_and_under_its_key_only() -> None:
    tokens = AesTokens(b"k" * 32)
    token = tokens.seal("a", b"plain")
    assert tokens.open("a", token) == b"plain"
    assert tokens.open("b", token) is None
    assert AesTokens(b"x" * 32).open("a", token) is None
    # A run that begins again has to say the same.
    assert tokens.seal("a", b"plain") == token != tokens.seal("a", b"plane")
    with pytest.raises(ValueError, match="32"):
        AesTokens(b"short")


class Rings:
    """Secrets of tenants, until they are shredded."""

    def __init__(self) -> None:
        self.times = 0

    async def ready(self, tenant: str) -> None:
        return

    def name(self, tenant: str, person: str) -> str:
        return f"{tenant}/{person}/{self.times}"


async def test_a_token_goes_with_its_tenant() -> None:
    rings = Rings()
    tokens = TenantTokens(b"k" * 32, rings)
    older = AesTokens(b"k" * 32).seal("a", b"plain")
    for tenant in "ab":
        await tokens.ready(tenant)
    token = tokens.seal("a", b"plain")
    assert token.startswith("shp2.")
    assert tokens.open("a", token) == b"plain"
    assert tokens.open("b", token) is None
    assert tokens.seal("a", b"plain") == token
    assert tokens.open("a", older) == b"plain"
    assert tokens.open("b", older) is None
    again = TenantTokens(b"k" * 32, rings)
    assert again.open("a", token) is None
    await again.ready("a")
    assert again.open("a", token) == b"plain"
    rings.times += 1
    await tokens.ready("a")
    assert tokens.open("a", token) is None


# ── strict answers ────────────────────────────────────────────────────────────


def strict(**more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    return {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True, **more}}


async def test_a_strict_answer_that_does_not_fit_is_no_completed_response() -> None:
    made = Scripted()
    assert (await made.ask(says('{"a":1}'), input="go", text=strict())).body["status"] == "completed"
    got = await made.ask(says('{"a":"one"}'), input="go", text=strict())
    assert got.body["status"] == "failed"
    assert got.body["error"]["code"] == "output_schema_mismatch"
    assert got.types == ["message"]
    loose = await made.ask(says("anything"), input="go", text=strict(strict=False))
    assert loose.body["status"] == "completed"


async def test_settings_in_the_conversation_hold_until_the_next() -> None:
    made = Scripted()
    update = {
        "type": "configuration_update",
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}, "verbosity": "low"},
    }
    first = await made.ask(says("{}"), input=[update, USER])
    assert (made.last.reasoning_effort, made.last.format.kind) == ("low", "json_object")
    assert made.last.extra["verbosity"] == Raw(b'"low"')
    await made.ask(says("x"), input="on", previous_response_id=first.body["id"], reasoning={"effort": "high"})
    assert (made.last.reasoning_effort, made.last.format.kind) == ("high", "json_object")
    await made.ask(says("x"), input="on", previous_response_id=first.body["id"], text={"verbosity": "high"})
    assert made.last.extra["verbosity"] == Raw(b'"high"')


# ── references ────────────────────────────────────────────────────────────────


async def test_items_can_be_named_by_their_ids() -> None:
    made = Scripted()
    first = await made.ask(says("the answer"), input="go")
    reference = {"type": "item_reference", "id": first.output[0]["id"]}
    await made.ask(says("x"), input=[USER, reference, USER])
    assert made.told() == [("user", "go"), ("assistant", "the answer"), ("user", "go")]
    await made.ask(says("x"), input=[{"id": reference["id"]}, USER], previous_response_id=first.body["id"])
    assert made.told() == [("user", "go"), ("assistant", "the answer"), ("user", "go")]
    for tenant, wanted in (("t", "msg_nowhere"), ("other", reference["id"])):
        with pytest.raises(NotFound, match="not found"):
            await made.ask(input=[{"type": "item_reference", "id": wanted}], tenant=tenant)
