"""openai-agents: a hosted MCP tool that asks before it is called. The run stops, a person decides, the run goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from agents import (
    Agent,
    HostedMCPTool,
    MCPToolApprovalFunctionResult,
    MCPToolApprovalRequest,
    ModelSettings,
    OpenAIResponsesModel,
    Runner,
    RunState,
    SQLiteSession,
    set_tracing_disabled,
)

set_tracing_disabled(True)
ASKED = 'add {"a": 20, "b": 22}'


@pytest.fixture
async def model(shepherd: str) -> AsyncIterator[OpenAIResponsesModel]:
    async with openai.AsyncOpenAI(base_url=f"{shepherd}/v1", api_key="none", max_retries=0) as client:
        yield OpenAIResponsesModel(model="simulated", openai_client=client)


def dog(model: OpenAIResponsesModel, url: str, **more: Any) -> Agent[Any]:
    config = {"type": "mcp", "server_label": "demo", "server_url": url, "require_approval": "always"}
    settings = ModelSettings(store=more.pop("store", None))
    tool = HostedMCPTool(tool_config=config, **more)  # type: ignore[arg-type]
    return Agent(name="Dog", instructions="Count.", model=model, tools=[tool], model_settings=settings)


class Going:
    """An agent that is run, streamed or not."""

    def __init__(self, agent: Agent[Any], streamed: bool, **options: Any) -> None:
        self.agent, self._streamed, self._options = agent, streamed, options

    async def run(self, given: Any) -> Any:
        if not self._streamed:
            return await Runner.run(self.agent, given, **self._options)
        result = Runner.run_streamed(self.agent, given, **self._options)
        async for _ in result.stream_events():
            pass
        return result


def calls(result: Any) -> list[Any]:
    """The calls of tools that were made, as the items of all responses have them."""
    return [item for each in result.raw_responses for item in each.output if item.type == "mcp_call"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("store", [None, False])
async def test_what_is_approved_is_called_once(
    model: OpenAIResponsesModel, demo_mcp: str, streamed: bool, store: bool | None
) -> None:
    going = Going(dog(model, demo_mcp, store=store), streamed)
    asked = await going.run(ASKED)
    assert [each.name for each in asked.interruptions] == ["add"]
    assert calls(asked) == []
    state = asked.to_state()
    state.approve(asked.interruptions[0])
    result = await going.run(state)
    assert result.interruptions == []
    assert "42" in result.final_output
    assert [(call.name, call.output, call.approval_request_id is not None) for call in calls(result)] == [
        ("add", "42", True)
    ]


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_is_rejected_is_not_called(model: OpenAIResponsesModel, demo_mcp: str, streamed: bool) -> None:
    going = Going(dog(model, demo_mcp), streamed)
    asked = await going.run(ASKED)
    state = asked.to_state()
    state.reject(asked.interruptions[0], rejection_message="not on a Sunday")
    result = await going.run(state)
    assert [call for call in calls(result) if call.output is not None] == []
    assert "42" not in result.final_output


async def test_the_decision_may_come_from_another_process(model: OpenAIResponsesModel, demo_mcp: str) -> None:
    going = Going(dog(model, demo_mcp), streamed=False)
    asked = await going.run(ASKED)
    kept = asked.to_state().to_string()
    state = await RunState.from_string(going.agent, kept)
    state.approve(state.get_interruptions()[0])
    assert "42" in (await going.run(state)).final_output


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("approve", [False, True])
async def test_a_function_that_decides(
    model: OpenAIResponsesModel, demo_mcp: str, streamed: bool, approve: bool
) -> None:
    seen: list[tuple[str, str]] = []

    def decide(request: MCPToolApprovalRequest) -> MCPToolApprovalFunctionResult:
        seen.append((request.data.server_label, request.data.name))
        return {"approve": approve}

    result = await Going(dog(model, demo_mcp, on_approval_request=decide), streamed).run(ASKED)
    assert seen == [("demo", "add")]
    assert ("42" in result.final_output) is approve


@pytest.mark.parametrize("streamed", [False, True])
async def test_with_a_session(model: OpenAIResponsesModel, demo_mcp: str, streamed: bool) -> None:
    session = SQLiteSession("flock")
    going = Going(dog(model, demo_mcp), streamed, session=session)
    asked = await going.run(ASKED)
    state = asked.to_state()
    state.approve(asked.interruptions[0])
    assert "42" in (await going.run(state)).final_output
    kept = [item.get("type") for item in await session.get_items()]
    assert {"mcp_approval_request", "mcp_approval_response", "mcp_call"} <= set(kept)
    again = await going.run("Thank you.")
    assert again.interruptions == []
    assert again.final_output
    session.close()
