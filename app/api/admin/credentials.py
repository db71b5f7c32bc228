"""What MCP servers are sent: the tenant's credentials, for its admins; one's own, for whoever has a key; and sign-ins.

No credential is ever shown again. A sign-in ends at a page of ours, and is finished by the one who began it, with their
key: whoever else is led to that page has signed in for nobody.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import MediaType, Response, Router, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Meta, Struct

from app.api.admin.rooms import Admin
from app.api.admin.servers import Asking, who
from app.api.body import read_as
from app.mcp.keeping import Standing
from app.mcp.oauth import description
from app.mcp.secrets import Given
from app.mcp.shelf import Kept
from app.turn.errors import Forbidden, NotFound

_PAGE = """<!doctype html><meta charset="utf-8"><title>Signed in</title>
<p>You have signed in. Go back to your application and give it the address of this page.</p>"""
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class KeptList(Struct, frozen=True):
    """Which credentials there are."""

    data: tuple[Kept, ...]


class Begun(Struct, frozen=True):
    """A sign-in that was begun: open the address in the user's browser."""

    authorization_url: str


class Callback(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The address the user's browser ended at."""

    callback_url: Annotated[str, Meta(max_length=8192)]


class SignedIn(Struct, frozen=True):
    """To which server."""

    label: str


_given: msgspec.json.Decoder[Given] = msgspec.json.Decoder(Given)
_callback = msgspec.json.Decoder(Callback)


def _owner(request: Asking, whose: str) -> str:
    by = who(request)
    if whose == "shared":
        return ""
    if whose != "mine":
        raise NotFound("Credentials are 'shared' or 'mine'.")
    if not by.principal:
        raise Forbidden("Nobody has credentials of their own where nobody has a key.")
    return by.principal


@get("/{label:str}/credentials", summary="List which credentials there are for an MCP server")
async def list_credentials(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> KeptList:
    """Whose they are and of which kind; never what they are."""
    return KeptList(tuple(await admin.keeping.kept(who(request), label)))


@put("/{label:str}/credentials/{whose:str}", status_code=204, summary="Keep a credential for an MCP server")
async def put_credential(
    request: Asking, admin: NamedDependency[Admin], label: FromPath[str], whose: FromPath[str]
) -> None:
    """`shared` by the whole tenant, or `mine`. Sessions that were opened with another one end."""
    owner = _owner(request, whose)
    await admin.keeping.put(who(request), label, owner, await read_as(request, _given))


@delete("/{label:str}/credentials/{whose:str}", summary="Forget a credential for an MCP server")
async def delete_credential(
    request: Asking, admin: NamedDependency[Admin], label: FromPath[str], whose: FromPath[str]
) -> None:
    """Sessions that were opened with it end."""
    await admin.keeping.remove(who(request), label, _owner(request, whose))


@put("/{label:str}", status_code=204, summary="Keep a credential of one's own for an MCP server")
async def put_own(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> None:
    """It is sent for this key's principal only."""
    owner = _owner(request, "mine")
    await admin.keeping.put(who(request), label, owner, await read_as(request, _given))


@delete("/{label:str}", summary="Forget one's own credential for an MCP server")
async def delete_own(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> None:
    """Also ends what was granted by signing in."""
    await admin.keeping.remove(who(request), label, _owner(request, "mine"))


@get("/{label:str}", summary="Look how one stands with an MCP server")
async def standing(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> Standing:
    """Whether this key's principal is signed in, and whether the server wants more than was granted."""
    return await admin.keeping.standing(who(request), label)


@post("/{label:str}/sign-in", status_code=200, summary="Begin to sign in to an MCP server")
async def begin(request: Asking, admin: NamedDependency[Admin], label: FromPath[str]) -> Begun:
    """Open the address in the user's browser within ten minutes."""
    return Begun(await admin.keeping.begin(who(request), label))


@post("/sign-in", status_code=200, summary="Finish signing in to an MCP server")
async def finish(request: Asking, admin: NamedDependency[Admin]) -> SignedIn:
    """With the address the browser ended at, by the one who began."""
    callback = await read_as(request, _callback)
    return SignedIn(await admin.keeping.finish(who(request), callback.callback_url))


@get("/oauth/callback", include_in_schema=False, sync_to_thread=False)
def ended() -> Response[str]:
    """Where browsers end. The page does nothing: what is in its address is for who began."""
    return Response(_PAGE, media_type=MediaType.HTML, headers=_PAGE_HEADERS)


@get("/oauth/client.json", include_in_schema=False, sync_to_thread=False)
def client(admin: NamedDependency[Admin]) -> dict[str, Any]:
    """Who this gateway is to authorization servers that look."""
    url = admin.keeping.public_url
    if not url:
        raise NotFound("Nobody can sign in here.")
    return {"client_id": f"{url}/oauth/client.json", **description(url)}


def router() -> Router:
    """The tenant's credentials."""
    handlers = [list_credentials, put_credential, delete_credential]
    return Router("/admin/v1/mcp/servers", route_handlers=handlers, tags=["MCP administration"])


def own() -> Router:
    """One's own."""
    return Router(
        "/v1/mcp/credentials", route_handlers=[standing, put_own, delete_own, begin, finish], tags=["MCP credentials"]
    )


def public() -> Router:
    """What browsers and authorization servers see."""
    return Router("/", route_handlers=[ended, client])
