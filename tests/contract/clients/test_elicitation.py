"""Tools that ask the user, through the real SDKs on both sides: the call is suspended, answered, and gone on with."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response

from tests.support.asking_server import TERMS_URL, asking_mcp_server, pipes
from tests.support.processes import gateway, simulator

ASKS: dict[str, Any] = {"type": "mcp", "server_label": "asks", "require_approval": "never"}
ANN = {"name": "Ann", "nights": 2}
BOOK = 'book {"place": "Ulm"}'


class World:
    """A gateway in front of a model and an asking server, and what came to its end there."""

    def __init__(self, client: openai.OpenAI, ledger: Path, url: str, *, legacy: bool = False) -> None:
        self.client, self.url, self.legacy, self._ledger = client, url, legacy, ledger
        self._before = len(self._lines)

    def anew(self) -> World:
        """The same, for another test."""
        return World(self.client, self._ledger, self.url, legacy=self.legacy)

    @property
    def _lines(self) -> list[str]:
        return self._ledger.read_text().splitlines() if self._ledger.exists() else []

    @property
    def done(self) -> list[str]:
        """What has been done in this test."""
        return self._lines[self._before :]

    def create(self, given: Any, *, streamed: bool = False, tool: dict[str, Any] = ASKS, **more: Any) -> Response:
        """A response, streamed or not."""
        wanted: Any = {"model": "simulated", "input": given, "tools": [tool], **more}
        if not streamed:
            return self.client.responses.create(**wanted)
        # Not the SDK's `stream` helper: it warns of every item of a type that it does not know.
        *_, last = self.client.responses.create(**wanted, stream=True)
        assert last.type == "response.completed"
        return last.response

    def refusal(self, given: Any, **more: Any) -> tuple[str | None, str | None]:
        """The code and the parameter of the error that the request is answered with."""
        with pytest.raises(openai.BadRequestError) as refused:
            self.create(given, **more)
        return refused.value.code, refused.value.param


def items(response: Response, kind: str) -> list[dict[str, Any]]:
    """The items of a type, as they are."""
    return [each for each in response.model_dump(warnings=False)["output"] if each["type"] == kind]


def questions(response: Response) -> list[dict[str, Any]]:
    """What the response asks."""
    return items(response, "mcp_elicitation_request")


def answer(question: dict[str, Any], action: str = "accept", content: Any = None) -> dict[str, Any]:
    """The answer to a question."""
    said = {"type": "mcp_elicitation_response", "elicitation_request_id": question["id"], "action": action}
    return said if content is None else {**said, "content": content}


@contextmanager
def world_at(
    directory: Path, mcp: str, ledger: Path, *flags: str, secs: float = 60.0, **more: float
) -> Generator[World]:
    """A gateway with its data in `directory`. `mcp` is the server's URL, or how it is configured."""
    place = f"url: {mcp}" if mcp.startswith("http") else mcp
    config = directory / "shepherd.yaml"
    config.write_text(
        f"""
responses:
  elicitation_secs: {secs}
mcp:
{"".join(f"  {name}: {value}{chr(10)}" for name, value in more.items())}
  servers:
    - label: asks
      {place}
      rules: {{elicitation: true}}
    - label: mute
      {place}
"""
    )
    with (
        gateway(directory, *flags, "--config", str(config)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield World(client, ledger, url)


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    """The model."""
    with simulator() as url:
        yield url


@pytest.fixture(scope="module", params=["modern", "legacy"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker: str) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("asking")
    ledger, legacy = directory / "ledger", request.param == "legacy"
    with (
        asking_mcp_server(ledger, legacy=legacy) as mcp,
        world_at(directory, mcp, ledger, "--worker-urls", worker) as world,
    ):
        world.legacy = legacy
        yield world


@pytest.fixture
def world(shared: World) -> World:
    """A server of either protocol: one that answers a call with what it asks, or asks while the call waits."""
    return shared.anew()


# ── one question ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("store", [True, False])
def test_a_call_is_suspended_and_gone_on_with(world: World, streamed: bool, store: bool) -> None:
    asked = world.create(BOOK, streamed=streamed, store=store)
    assert asked.status == "completed"
    (question,) = questions(asked)
    (call,) = items(asked, "mcp_call")
    assert (question["server_label"], question["name"], question["arguments"]) == ("asks", "book", '{"place": "Ulm"}')
    assert (question["mode"], question["message"], question["mcp_call_id"]) == ("form", "Who is coming?", call["id"])
    assert question["requested_schema"]["required"] == ["name", "nights"]
    assert (call["status"], call["output"], call["error"]["type"]) == ("failed", None, "mcp_protocol_error")
    assert world.done == []
    given: list[Any] = [answer(question, content=ANN)]
    if store:
        went = world.create(given, streamed=streamed, previous_response_id=asked.id)
    else:
        said = [{"role": "user", "content": BOOK}, *asked.model_dump(exclude_none=True, warnings=False)["output"]]
        went = world.create([*said, *given], streamed=streamed, store=False)
    (made,) = items(went, "mcp_call")
    assert (made["status"], made["output"]) == ("completed", "booked Ulm for Ann, 2 nights")
    assert made["elicitation_request_id"] == question["id"]
    assert went.output_text == "book returned: booked Ulm for Ann, 2 nights"
    assert world.done == ["booked Ulm for Ann, 2 nights"]


def test_in_a_conversation(world: World) -> None:
    conversation = world.client.conversations.create().id
    asked = world.create(BOOK, conversation=conversation)
    went = world.create([answer(questions(asked)[0], content=ANN)], conversation=conversation)
    assert went.output_text == "book returned: booked Ulm for Ann, 2 nights"
    kinds = [item.type for item in world.client.conversations.items.list(conversation, order="asc")]
    assert kinds.count("mcp_elicitation_request") == kinds.count("mcp_elicitation_response") == 1  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("action", ["decline", "cancel"])
def test_the_server_hears_that_the_user_will_not(world: World, action: str) -> None:
    asked = world.create(BOOK)
    went = world.create([answer(questions(asked)[0], action)], previous_response_id=asked.id)
    (made,) = items(went, "mcp_call")
    assert (made["status"], made["error"]["type"]) == ("failed", "mcp_tool_execution_error")
    assert world.done == []


def test_what_is_never_answered_is_told_to_the_model(world: World) -> None:
    asked = world.create(BOOK)
    went = world.create("never mind", previous_response_id=asked.id)
    assert went.output_text == "You said: never mind"
    assert world.done == []


# ── what is refused ───────────────────────────────────────────────────────────


def test_content_that_does_not_fit_is_refused_and_uses_nothing_up(world: World) -> None:
    asked = world.create(BOOK)
    (question,) = questions(asked)
    for wrong in ({"name": "Ann"}, {"name": "Ann", "nights": 0}, {"name": 1, "nights": 1}, [1]):
        refused = world.refusal([answer(question, content=wrong)], previous_response_id=asked.id)
        assert refused == ("elicitation_content_invalid", "input[0].content")
    for action in ("decline", "cancel"):
        refused = world.refusal([answer(question, action, ANN)], previous_response_id=asked.id)
        assert refused == ("elicitation_content_invalid", "input[0].content")
    assert world.refusal([answer(question, "maybe")], previous_response_id=asked.id)[1] == "input[0].action"
    went = world.create([answer(question, content=ANN)], previous_response_id=asked.id)
    assert went.output_text.startswith("book returned: booked")


def test_an_answer_counts_once(world: World) -> None:
    asked = world.create(BOOK)
    given = [answer(questions(asked)[0], content=ANN)]
    world.create(given, previous_response_id=asked.id)
    refused = world.refusal(given, previous_response_id=asked.id)
    assert refused == ("elicitation_already_answered", "input[0].elicitation_request_id")
    assert len(world.done) == 1


def test_what_was_never_asked_is_not_found(world: World) -> None:
    asked = world.create(BOOK)
    refused = world.refusal([answer({"id": "mcpe_nothing"}, content=ANN)], previous_response_id=asked.id)
    assert refused == ("elicitation_not_found", "input[0].elicitation_request_id")


def test_the_server_has_to_be_among_the_tools_again(world: World) -> None:
    asked = world.create(BOOK)
    given = [answer(questions(asked)[0], content=ANN)]
    mute = {**ASKS, "server_label": "mute"}
    assert world.refusal(given, tool=mute, previous_response_id=asked.id) == ("missing_required_parameter", "tools")
    assert world.create(given, previous_response_id=asked.id).output_text.startswith("book returned: booked")


# ── several questions ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("streamed", [False, True])
def test_all_that_a_call_asks_is_answered_together(world: World, streamed: bool) -> None:
    asked = world.create('stay {"place": "Ulm"}', streamed=streamed)
    if world.legacy:
        # Asked within the call, one after the other.
        again = world.create([answer(questions(asked)[0], content=ANN)], previous_response_id=asked.id)
        (eats,) = questions(again)
        assert items(again, "mcp_call")[0]["elicitation_request_id"] == questions(asked)[0]["id"]
        went = world.create([answer(eats, content={"dinner": True})], streamed=streamed, previous_response_id=again.id)
        assert went.output_text == "stay returned: stay at Ulm: Ann, dinner True"
        return
    who, eats = questions(asked)
    assert eats["id"] == f"{who['id']}-2"
    half = world.refusal([answer(who, content=ANN)], previous_response_id=asked.id)
    assert half == ("elicitation_incomplete", "input")
    given = [answer(eats, content={"dinner": True}), answer(who, content=ANN)]
    went = world.create(given, streamed=streamed, previous_response_id=asked.id)
    assert went.output_text == "stay returned: stay at Ulm: Ann, dinner True"


@pytest.mark.parametrize("streamed", [False, True])
def test_two_calls_of_a_turn_both_ask_and_a_third_runs(world: World, streamed: bool) -> None:
    asked = world.create(f'{BOOK} book {{"place": "Bonn"}} add {{"a": 1, "b": 2}}', streamed=streamed)
    first, second = questions(asked)
    assert [call["output"] for call in items(asked, "mcp_call")] == [None, None, "3"]
    went = world.create([answer(second, content={**ANN, "name": "Bob"})], previous_response_id=asked.id)
    assert world.done == ["3", "booked Bonn for Bob, 2 nights"]
    later = world.create([answer(first, content=ANN)], previous_response_id=went.id)
    assert "booked Ulm for Ann, 2 nights" in later.output_text


# ── addresses ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("action", ["accept", "decline"])
def test_a_call_that_sends_the_user_somewhere_first_is_made_again(world: World, action: str) -> None:
    asked = world.create(f'buy {{"order": "{action}"}}')
    (question,) = questions(asked)
    assert (question["mode"], question["url"], question["message"]) == ("url", TERMS_URL, "Read the terms.")
    bad = world.refusal([answer(question, content={"a": 1})], previous_response_id=asked.id)
    assert bad == ("elicitation_content_invalid", "input[0].content")
    went = world.create([answer(question, action)], previous_response_id=asked.id)
    (made,) = items(went, "mcp_call")
    if action == "accept":
        assert (made["output"], world.done) == ("bought accept", ["bought accept"])
    else:
        assert "did not agree" in made["error"]["message"]
        assert world.done == []


@pytest.mark.parametrize("url", ["http://shop.example/", "https://bank.example@evil.example/", "javascript:alert(1)"])
def test_nobody_is_sent_where_nobody_should_go(world: World, url: str) -> None:
    asked = world.create(f'sneak {{"url": "{url}"}}')
    assert questions(asked) == []
    (call,) = items(asked, "mcp_call")
    assert "sends the user to an address" in call["error"]["message"]


# ── who may ask ───────────────────────────────────────────────────────────────


def test_only_a_server_whose_rules_say_so_may_ask(world: World) -> None:
    mute = {**ASKS, "server_label": "mute"}
    asked = world.create(BOOK, tool=mute)
    assert questions(asked) == []
    assert items(asked, "mcp_call")[0]["status"] == "failed"
    assert [items(world.create("able {}", tool=each), "mcp_call")[0]["output"] for each in (mute, ASKS)] == [
        "False",
        "True",
    ]


@pytest.mark.parametrize("streamed", [False, True])
def test_an_approved_call_may_ask_and_goes_on_as_it_was_approved(world: World, streamed: bool) -> None:
    careful = {**ASKS, "require_approval": "always"}
    waiting = world.create(BOOK, tool=careful, streamed=streamed)
    (request,) = items(waiting, "mcp_approval_request")
    word = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": True}
    asked = world.create([word], tool=careful, streamed=streamed, previous_response_id=waiting.id)
    (question,) = questions(asked)
    assert items(asked, "mcp_call")[0]["approval_request_id"] == request["id"]
    went = world.create([answer(question, content=ANN)], tool=careful, streamed=streamed, previous_response_id=asked.id)
    (made,) = items(went, "mcp_call")
    assert (made["approval_request_id"], made["elicitation_request_id"]) == (request["id"], question["id"])
    assert made["output"] == "booked Ulm for Ann, 2 nights"
    assert world.done == ["booked Ulm for Ann, 2 nights"]


# ── over pipes ────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=["modern", "legacy"])
def piped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker: str) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("piped")
    ledger, legacy = directory / "ledger", request.param == "legacy"
    with world_at(directory, pipes(ledger, legacy=legacy), ledger, "--worker-urls", worker) as world:
        world.legacy = legacy
        yield world


@pytest.fixture
def over_pipes(piped: World) -> World:
    """A server of either protocol that the gateway has started itself."""
    return piped.anew()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_over_pipes_is_suspended_and_gone_on_with(over_pipes: World, streamed: bool) -> None:
    asked = over_pipes.create(BOOK, streamed=streamed)
    (question,) = questions(asked)
    assert (question["message"], over_pipes.done) == ("Who is coming?", [])
    went = over_pipes.create([answer(question, content=ANN)], streamed=streamed, previous_response_id=asked.id)
    assert went.output_text == "book returned: booked Ulm for Ann, 2 nights"
    declined = over_pipes.create(BOOK, streamed=streamed)
    over_pipes.create([answer(questions(declined)[0], "decline")], previous_response_id=declined.id)
    assert over_pipes.done == ["booked Ulm for Ann, 2 nights"]


def test_of_calls_over_pipes_that_ask_side_by_side_nobody_guesses_which(over_pipes: World) -> None:
    asked = over_pipes.create(f'{BOOK} book {{"place": "Bonn"}}')
    if not over_pipes.legacy:
        assert len(questions(asked)) == 2
        return
    assert questions(asked) == []
    assert [call["status"] for call in items(asked, "mcp_call")] == ["failed", "failed"]
    assert over_pipes.done == []
    # And the server can be used as before.
    again = over_pipes.create(BOOK)
    went = over_pipes.create([answer(questions(again)[0], content=ANN)], previous_response_id=again.id)
    assert went.output_text == "book returned: booked Ulm for Ann, 2 nights"


# ── what lasts ────────────────────────────────────────────────────────────────


def test_a_question_survives_its_server_and_is_listed_for_admins(tmp_path: Path, worker: str) -> None:
    ledger = tmp_path / "ledger"
    with asking_mcp_server(ledger) as mcp:
        with world_at(tmp_path, mcp, ledger, "--worker-urls", worker) as world:
            asked = world.create(BOOK, streamed=True)
            (listed,) = httpx.get(f"{world.url}/admin/v1/elicitations/", trust_env=False, timeout=30).json()["data"]
            assert (listed["id"], listed["tool"], listed["used"]) == (questions(asked)[0]["id"], "book", False)
            assert [each["message"] for each in listed["questions"]] == ["Who is coming?"]
        with world_at(tmp_path, mcp, ledger, "--worker-urls", worker) as world:
            went = world.create([answer(questions(asked)[0], content=ANN)], previous_response_id=asked.id)
            assert went.output_text == "book returned: booked Ulm for Ann, 2 nights"
            assert httpx.get(f"{world.url}/admin/v1/elicitations/", trust_env=False, timeout=30).json()["data"] == []
    assert b"Ulm for Ann" not in (tmp_path / "gateway.log").read_bytes()


def test_a_call_that_waits_at_its_server_ends_with_its_process(tmp_path: Path, worker: str) -> None:
    ledger = tmp_path / "ledger"
    flags = ("--worker-urls", worker)
    with asking_mcp_server(ledger, legacy=True) as mcp:
        with world_at(tmp_path, mcp, ledger, *flags) as world:
            asked = world.create(BOOK)
        with world_at(tmp_path, mcp, ledger, *flags) as world:
            went = world.create([answer(questions(asked)[0], content=ANN)], previous_response_id=asked.id)
            (made,) = items(went, "mcp_call")
            assert (made["status"], made["error"]["type"]) == ("failed", "mcp_protocol_error")
            assert "has stopped" in made["error"]["message"]
            assert went.status == "completed"
            assert world.done == []


def test_a_tenant_has_only_so_many_calls_that_wait(tmp_path: Path, worker: str) -> None:
    ledger = tmp_path / "ledger"
    with (
        asking_mcp_server(ledger, legacy=True) as mcp,
        world_at(tmp_path, mcp, ledger, "--worker-urls", worker, max_held_per_tenant=1) as world,
    ):
        first = world.create(BOOK)
        second = world.create(BOOK)
        assert questions(second) == []
        assert "Too many calls wait" in items(second, "mcp_call")[0]["error"]["message"]
        went = world.create([answer(questions(first)[0], content=ANN)], previous_response_id=first.id)
        assert went.output_text == "book returned: booked Ulm for Ann, 2 nights"
        assert len(questions(world.create(BOOK))) == 1


def test_a_question_that_is_too_old_is_not_answered(tmp_path: Path, worker: str) -> None:
    ledger = tmp_path / "ledger"
    flags = ("--worker-urls", worker)
    with asking_mcp_server(ledger) as mcp, world_at(tmp_path, mcp, ledger, *flags, secs=0.001) as world:
        asked = world.create(BOOK)
        refused = world.refusal([answer(questions(asked)[0], content=ANN)], previous_response_id=asked.id)
        assert refused == ("elicitation_expired", "input[0].elicitation_request_id")
        assert world.done == []
