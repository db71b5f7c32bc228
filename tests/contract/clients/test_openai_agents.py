"""openai-agents against a real gateway: a hosted MCP tool, a function tool, streamed and not."""

from __future__ import annotations

from contextlib import closing

from agents import (
    Agent,
    HostedMCPTool,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)

set_tracing_disabled(True)


def hosted(url: str) -> HostedMCPTool:
    config = {"type": "mcp", "server_label": "demo", "server_url": url, "require_approval": "never"}
    return HostedMCPTool(tool_config=config)


async def test_hosted_mcp_tool(model: OpenAIResponsesModel, demo_mcp: str) -> None:
    agent = Agent(name="Shepherd's dog", instructions="Count.", model=model, tools=[hosted(demo_mcp)])
    result = await Runner.run(agent, 'add {"a": 20, "b": 22}')
    assert "42" in result.final_output


async def test_hosted_mcp_tool_streamed(model: OpenAIResponsesModel, demo_mcp: str) -> None:
    agent = Agent(name="Shepherd's dog", instructions="Count.", model=model, tools=[hosted(demo_mcp)])
    result = Runner.run_streamed(agent, 'add {"a": 20, "b": 22}')
    kinds = [event.type async for event in result.stream_events()]
    assert "run_item_stream_event" in kinds
    assert "42" in result.final_output


async def test_function_tool(model: OpenAIResponsesModel) -> None:
    asked: list[str] = []

    @function_tool
    def count_sheep(field: str) -> str:
        """Count the sheep in a field."""
        asked.append(field)
        return "seventeen sheep"

    agent = Agent(name="Shepherd's dog", instructions="Count.", model=model, tools=[count_sheep])
    result = await Runner.run(agent, 'count_sheep {"field": "north"}')
    assert asked == ["north"]
    assert "seventeen sheep" in result.final_output


async def test_a_session_keeps_what_was_said(model: OpenAIResponsesModel) -> None:
    agent = Agent(name="Shepherd's dog", model=model)
    with closing(SQLiteSession("flock")) as session:
        first = await Runner.run(agent, "Count to three.", session=session)
        second = await Runner.run(agent, "And on.", session=session)
        kept = await session.get_items()
    assert [item["role"] for item in kept if "role" in item] == ["user", "assistant", "user", "assistant"]
    tokens = [run.context_wrapper.usage.input_tokens for run in (first, second)]
    assert tokens[1] > tokens[0]
