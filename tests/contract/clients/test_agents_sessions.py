"""openai-agents' sessions: kept by the client, kept by us as a conversation, and compacted by us."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
from agents import (
    Agent,
    HostedMCPTool,
    OpenAIConversationsSession,
    OpenAIResponsesCompactionSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)

from tests.support.processes import gateway, simulator

set_tracing_disabled(True)
# The compaction session wants a name that sounds like OpenAI's.
GPT = "gpt-4.1"


@function_tool
def count_sheep(field: str) -> str:
    """Count the sheep in a field."""
    return f"seventeen sheep in the {field} field"


@pytest.fixture
async def api(shepherd: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{shepherd}/v1", api_key="none", max_retries=0) as client:
        yield client


def dog(api: openai.AsyncOpenAI, *tools: Any, model: str = "simulated") -> Agent[Any]:
    return Agent(name="Dog", model=OpenAIResponsesModel(model=model, openai_client=api), tools=list(tools))


def kinds(items: list[Any]) -> list[str]:
    return [item.get("type") or item["role"] for item in items]


async def ask(agent: Agent[Any], text: str, session: Any, streamed: bool) -> Any:
    if not streamed:
        return await Runner.run(agent, text, session=session)
    result = Runner.run_streamed(agent, text, session=session)
    async for _ in result.stream_events():
        pass
    return result


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_conversation_of_ours_is_a_session(api: openai.AsyncOpenAI, demo_mcp: str, streamed: bool) -> None:
    config = {"type": "mcp", "server_label": "demo", "server_url": demo_mcp, "require_approval": "never"}
    agent = dog(api, count_sheep, HostedMCPTool(tool_config=config))  # type: ignore[arg-type]
    session = OpenAIConversationsSession(openai_client=api)
    assert "17" in (await ask(agent, 'add {"a": 8, "b": 9}', session, streamed)).final_output
    assert "seventeen" in (await ask(agent, 'count_sheep {"field": "north"}', session, streamed)).final_output
    assert (await ask(agent, "Thank you.", session, streamed)).final_output
    items = await session.get_items()
    assert kinds(items) == [
        "message",
        "mcp_list_tools",
        "mcp_call",
        "message",
        "message",
        "function_call",
        "function_call_output",
        "message",
        "message",
        "message",
    ]
    assert session.session_id.startswith("conv_")
    assert kinds(await session.get_items(limit=2)) == ["message", "message"]
    other = OpenAIConversationsSession(conversation_id=session.session_id, openai_client=api)
    assert await other.get_items() == items
    last = await session.pop_item()
    assert last == items[-1]
    assert await session.get_items() == items[:-1]
    await session.clear_session()
    with pytest.raises(openai.NotFoundError):
        await api.conversations.retrieve(other.session_id)


async def test_many_items_are_added_in_order(api: openai.AsyncOpenAI) -> None:
    session = OpenAIConversationsSession(openai_client=api)
    await session.add_items([{"role": "user", "content": f"sheep {number}"} for number in range(45)])
    found: Any = await session.get_items()
    assert [item["content"][0]["text"] for item in found] == [f"sheep {number}" for number in range(45)]


async def test_a_session_in_a_file(api: openai.AsyncOpenAI, tmp_path: Path) -> None:
    agent = dog(api, count_sheep)
    with closing(SQLiteSession("flock", tmp_path / "sessions.db")) as session:
        await ask(agent, 'count_sheep {"field": "north"}', session, streamed=False)
    with closing(SQLiteSession("flock", tmp_path / "sessions.db")) as session:
        again = await ask(agent, "Thank you.", session, streamed=False)
        assert again.final_output
        kept = kinds(await session.get_items())
        assert kept == ["user", "function_call", "function_call_output", "message", "user", "message"]


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("gpt")
    with simulator("--models", GPT) as worker, gateway(directory, "--worker-urls", worker) as url:
        yield url


@pytest.mark.parametrize("mode", ["input", "previous_response_id", "auto"])
async def test_a_session_that_is_compacted(gpt: str, mode: Any) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gpt}/v1", api_key="none", max_retries=0) as api:
        with closing(SQLiteSession("flock")) as kept:
            session = OpenAIResponsesCompactionSession(
                "flock",
                kept,
                client=api,
                model=GPT,
                compaction_mode=mode,
                should_trigger_compaction=lambda context: len(context["compaction_candidate_items"]) >= 5,
            )
            agent = dog(api, count_sheep, model=GPT)
            await ask(agent, 'count_sheep {"field": "north"}', session, streamed=False)
            assert "compaction" not in kinds(await session.get_items())
            await ask(agent, 'count_sheep {"field": "south"}', session, streamed=False)
            short = kinds(await session.get_items())
            assert short.count("compaction") == 1
            assert "function_call" not in short
            again = await ask(agent, "Thank you.", session, streamed=False)
            assert again.final_output
            assert kinds(await session.get_items())[: len(short)] == short


async def test_a_session_is_compacted_by_hand(gpt: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gpt}/v1", api_key="none", max_retries=0) as api:
        with closing(SQLiteSession("flock")) as kept:
            session = OpenAIResponsesCompactionSession("flock", kept, client=api, model=GPT)
            await ask(dog(api, model=GPT), "Hello", session, streamed=True)
            await session.run_compaction({"force": True})
            assert "compaction" in kinds(await session.get_items())
            assert (await ask(dog(api, model=GPT), "And on.", session, streamed=True)).final_output
