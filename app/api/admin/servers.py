"""`/admin/v1/mcp/servers`: a tenant's MCP servers, and what their tools may do."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from litestar import Request, Response, Router, delete, get, post, put
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, HeaderParameter
from msgspec import Struct

from app.api.admin.rooms import Admin
from app.api.body import read_as
from app.api.principal import principal_of
from app.mcp.admin import Probe, ServerView, ToolView
from app.mcp.rules import Label, ServerConfig, TenantPolicy
from app.mcp.sessions import Owner
from app.turn.errors import GatewayError, InvalidRequest

Asking = Request[None, None, State]
IfMatch = Annotated[str | None, HeaderParameter(name="if-match", description="The etag of the version to replace.")]


class Missing(GatewayError):
    """428: say which version is to be replaced."""

    status = 428
    code = "precondition_required"


class NewServer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server to register. There is no way to name a command: those are the operator's."""

    label: Label
    config: ServerConfig
    enabled: bool = True


class ChangedServer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a server is to be."""

    config: ServerConfig
    enabled: bool = True


class Acceptance(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The definition of a tool that may be used from now on."""

    tool: str
    digest: str


class Servers(Struct, frozen=True):
    """All servers."""

    data: tuple[ServerView, ...]


class Tools(Struct, frozen=True):
    """All tools of a server."""

    data: tuple[ToolView, ...]


class PolicyView(Struct, frozen=True):
    """The tenant's policy."""

    version: int
    policy: TenantPolicy


_new = msgspec.json.Decoder(NewServer)
_changed = msgspec.json.Decoder(ChangedServer)
_acceptance = msgspec.json.Decoder(Acceptance)
_policy = msgspec.json.Decoder(TenantPolicy)


def who(request: Asking) -> Owner:
    """In whose name."""
    principal = principal_of(request.scope)
    return Owner(principal.tenant, principal.id)


@get("/servers", summary="List MCP servers")
async def list_servers(request: Asking, admin: NamedDependency[Admin]) -> Servers:
    """The servers requests can name by their label, those of the settings file first."""
    return Servers(tuple(await admin.mcp.servers(who(request))))


@post("/servers", summary="Register an MCP server")
async def create_server(request: Asking, admin: NamedDependency[Admin]) -> Response[ServerView]:
    """Register a server; `label` is what requests call it."""
    new = await read_as(request, _new)
    made = await admin.mcp.create(who(request), new.label, new.config, enabled=new.enabled)
    return _with_etag(made, 201)


@get("/servers/{label:str}", summary="Read an MCP server")
async def read_server(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> Response[ServerView]:
    """One server; its etag is what a change must give back."""
    return _with_etag(await admin.mcp.server(who(request), label))


@put("/servers/{label:str}", summary="Change an MCP server")
async def change_server(
    request: Asking, admin: NamedDependency[Admin], label: FromPath[str], if_match: IfMatch = None
) -> Response[ServerView]:
    """Replace the version named by `If-Match`. It holds at once, also for responses in the making."""
    new = await read_as(request, _changed)
    expected = _version(if_match)
    return _with_etag(await admin.mcp.update(who(request), label, new.config, enabled=new.enabled, expected=expected))


@delete("/servers/{label:str}", summary="Forget an MCP server")
async def delete_server(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> None:
    """Forget the server, the definitions of its tools and its credentials."""
    await admin.mcp.delete(who(request), label)


@post("/servers/{label:str}/enable", status_code=200, summary="Switch an MCP server on")
async def enable_server(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> Response[ServerView]:
    """Switch it on."""
    return _with_etag(await admin.mcp.set_enabled(who(request), label, enabled=True))


@post("/servers/{label:str}/disable", status_code=200, summary="Switch an MCP server off, at once")
async def disable_server(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> Response[ServerView]:
    """Switch it off: the next call to it is refused, also in a response in the making."""
    return _with_etag(await admin.mcp.set_enabled(who(request), label, enabled=False))


@post("/servers/{label:str}/probe", status_code=200, summary="Test the connection to an MCP server")
async def probe_server(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> Probe:
    """Connect and list the tools, now; or why that cannot be done."""
    return await admin.mcp.probe(who(request), label)


@get("/servers/{label:str}/tools", summary="List an MCP server's tools, with what was decided about them")
async def list_tools(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> Tools:
    """The tools the server lists now, those that are quarantined too."""
    return Tools(tuple(await admin.mcp.tools(who(request), label)))


@post("/servers/{label:str}/tools/accept", status_code=204, summary="Accept a tool's definition")
async def accept_tool(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> None:
    """Let a quarantined tool be used as it is now; `digest` says which definition was looked at."""
    accepted = await read_as(request, _acceptance)
    await admin.mcp.accept(who(request), label, accepted.tool, accepted.digest)


@get("/policy", summary="Read the tenant's MCP policy")
async def read_policy(request: Asking, admin: NamedDependency[Admin]) -> Response[PolicyView]:
    """What holds for all requests of the tenant."""
    policy = await admin.mcp.policy(who(request))
    return Response(PolicyView(policy.version, policy.body), headers={"etag": f'"{policy.version}"'})


@put("/policy", summary="Change the tenant's MCP policy")
async def change_policy(
    request: Asking, admin: NamedDependency[Admin], if_match: IfMatch = None
) -> Response[PolicyView]:
    """Replace the version named by `If-Match`; `"0"` where there is none yet."""
    body = await read_as(request, _policy)
    policy = await admin.mcp.set_policy(who(request), body, expected=_version(if_match))
    return Response(PolicyView(policy.version, policy.body), headers={"etag": f'"{policy.version}"'})


def router() -> Router:
    """The handlers of MCP servers."""
    servers = [list_servers, create_server, read_server, change_server, delete_server]
    actions = [enable_server, disable_server, probe_server, list_tools, accept_tool, read_policy, change_policy]
    return Router("/admin/v1/mcp", route_handlers=[*servers, *actions], tags=["MCP administration"])


def _version(if_match: str | None) -> int:
    if if_match is None:
        raise Missing("Say which version is to be replaced: send its etag as 'If-Match'.", param="if-match")
    text = if_match.strip().removeprefix("W/").strip('"')
    if re.fullmatch(r"[0-9]{1,18}", text) is None:
        raise InvalidRequest("'If-Match' is not an etag of this server's.", param="if-match")
    return int(text)


def _with_etag(view: ServerView, status: int = 200) -> Response[ServerView]:
    return Response(view, status_code=status, headers={"etag": f'"{view.version}"'})
