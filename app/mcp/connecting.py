"""How a connection to an MCP server comes to be: the way to it, the SDK's session over that, an agreed version."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version

from mcp import ClientSession, types
from mcp.client._probe import negotiate_auto  # there is no public name for what the SDK's `Client` does with a session
from mcp.client.stdio import get_default_environment
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher

from app.mcp import stdio
from app.mcp.client import Changes, Link, sdk_errors
from app.mcp.exchanges import exchanges
from app.mcp.failure import CLOSED, broken
from app.mcp.guard import Guard
from app.mcp.held import Talks
from app.mcp.outbound import VettedTransport
from app.mcp.servers import Target
from app.mcp.settings import McpSettings


@asynccontextmanager
async def connect(target: Target, settings: McpSettings, network: VettedTransport) -> AsyncGenerator[Link, None]:
    """Connect and agree on a protocol version. Raises `McpFailure`.

    One task enters and leaves it; meanwhile every task may use the link.
    """
    async with AsyncExitStack() as stack:
        pipes: stdio.Pipes | None = None
        known = _always
        if target.url is None:
            pipes = await _started(target, settings, stack)
            dispatcher = JSONRPCDispatcher(*await stack.enter_async_context(stdio.streams(pipes)))
        else:
            headers = {"user-agent": "shepherd", **target.headers, "accept-encoding": "identity"}
            guard = Guard(network, settings, target.bearer)
            dispatcher = spoken = await stack.enter_async_context(exchanges(target.url, headers, guard))
            known = lambda: spoken.known  # noqa: E731 - a property is asked anew each time
        changes, talks = Changes(), Talks(target.label) if target.elicits else None
        about_us = types.Implementation(name="shepherd", version=version("shepherd"))
        asked = ClientSession(
            dispatcher=dispatcher,
            client_info=about_us,
            message_handler=changes.note,
            elicitation_callback=None if talks is None else talks.heard,
        )
        with sdk_errors(target.label):
            async with AsyncExitStack() as opening:
                session = await opening.enter_async_context(asked)
                await negotiate_auto(session)
                stack.push_async_exit(opening.pop_all())
        yield Link(session, target.label, settings, pipes, changes, known, talks)


def _always() -> bool:
    return True


async def _started(target: Target, settings: McpSettings, stack: AsyncExitStack) -> stdio.Pipes:
    try:
        env = get_default_environment() | dict(target.env)
        command = (*settings.stdio_wrapper, *target.command)
        pipes = await stdio.start(command, env, settings.max_body_bytes, target.confinement)
    except (OSError, ValueError) as error:
        reason = f"MCP server '{target.label}' could not be started ({type(error).__name__})."
        raise broken(reason, CLOSED) from None
    stack.push_async_callback(pipes.stop)
    return pipes
