"""Signing in to a server: OAuth 2.1, for a user by authorization code with PKCE, for a tenant by its own client.

The server names its authorization server (RFC 9728), which describes itself (RFC 8414). Neither is believed more than
it must be: the resource has to be the server that was asked about, the issuer has to be the one that was named, and the
answer has to come from that issuer (RFC 9207). All of it goes through the network that goes only where it may.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # pyright: ignore[reportUnknownVariableType]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # pyright: ignore[reportUnknownVariableType]
from msgspec import Struct, structs

from app.mcp import tokens
from app.mcp.challenge import challenged
from app.mcp.failure import McpFailure, broken
from app.mcp.secrets import ClientCredentials, Grant, Issued, OAuthClient, joined


class _Resource(Struct, frozen=True):
    resource: str
    authorization_servers: tuple[str, ...]
    scopes_supported: tuple[str, ...] = ()


class Issuer(Struct, frozen=True):
    """What an authorization server says about itself."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str = ""
    registration_endpoint: str | None = None
    code_challenge_methods_supported: tuple[str, ...] = ()
    client_id_metadata_document_supported: bool = False
    authorization_response_iss_parameter_supported: bool = False
    token_endpoint_auth_methods_supported: tuple[str, ...] = ()

    @property
    def post(self) -> bool:
        """Whether a client's secret has to be in the form: RFC 8414 has it in a header where nothing is said."""
        methods = self.token_endpoint_auth_methods_supported
        return "client_secret_post" in methods and "client_secret_basic" not in methods


class Started(Struct, frozen=True):
    """A sign-in that was begun: everything that is needed to finish it. Sealed while it waits."""

    issuer: str
    token_url: str
    client_id: str
    client_secret: str | None
    resource: str
    scope: str | None
    verifier: str
    redirect_uri: str
    iss_required: bool
    post: bool = False


class Callback(Struct, frozen=True):
    """What the authorization server sent the user back with, and to which address."""

    address: str
    code: str
    state: str
    iss: str | None


async def discover(network: httpx2.AsyncBaseTransport, server_url: str) -> tuple[_Resource, Issuer]:
    """Whose tokens the server takes, and where users get them. Raises `McpFailure`."""
    resource, issuer = await _described(network, server_url)
    if not issuer.authorization_endpoint:
        raise broken("The authorization server signs no users in.", 401)
    if "S256" not in issuer.code_challenge_methods_supported:
        raise broken("The authorization server does not support PKCE, without which nobody signs in here.", 401)
    return resource, issuer


async def located(network: httpx2.AsyncBaseTransport, server_url: str, secret: ClientCredentials) -> ClientCredentials:
    """The credential with where its tokens come from: as it says, or found now. Raises `McpFailure`.

    What was found is kept: a server that names another authorization server later does not get it the secret.
    """
    if secret.token_url is not None:
        return secret
    resource, issuer = await _described(network, server_url)
    return structs.replace(
        secret,
        token_url=issuer.token_endpoint,
        scope=secret.scope or " ".join(resource.scopes_supported) or None,
        resource=secret.resource or resource.resource,
        post=issuer.post,
    )


async def _described(network: httpx2.AsyncBaseTransport, server_url: str) -> tuple[_Resource, Issuer]:
    parts = urlsplit(server_url)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    wellknown = f"{origin}/.well-known/oauth-protected-resource"
    said = await challenged(network, server_url)
    places = (wellknown + path, wellknown) if said.metadata_url is None else (said.metadata_url,)
    resource = _read(await _first(network, dict.fromkeys(places)), _Resource)
    if not _covers(resource.resource, server_url):
        raise broken("The server describes the access to another resource than itself.", 401)
    if not resource.authorization_servers:
        raise broken("The server names no authorization server.", 401)
    issuer = resource.authorization_servers[0]
    found = _read(await _first(network, dict.fromkeys(_descriptions(issuer))), Issuer)
    if found.issuer != issuer:
        raise broken("The authorization server calls itself by another name than the server does.", 401)
    # What is needed here and now, where that is said, is less than all there is.
    needed = resource.scopes_supported if said.scope is None else tuple(said.scope.split())
    return structs.replace(resource, scopes_supported=needed), found


async def client_of(
    network: httpx2.AsyncBaseTransport, issuer: Issuer, given: OAuthClient | None, public_url: str
) -> OAuthClient:
    """Who we are to the authorization server: as registered before, by our own description, or registered now."""
    if given is not None:
        return given
    if issuer.client_id_metadata_document_supported and public_url.startswith("https://"):
        return OAuthClient(client_id=f"{public_url}/oauth/client.json")
    if issuer.registration_endpoint is None:
        raise broken("The authorization server knows no client of yours; keep one as the shared credential.", 401)
    said = await tokens.fetch(
        network, issuer.registration_endpoint, body=msgspec.json.encode(_registration(issuer, public_url))
    )
    if not isinstance(said.get("client_id"), str):
        raise broken("The authorization server registered no client.", 401)
    secret = said.get("client_secret")
    return OAuthClient(client_id=said["client_id"], client_secret=secret if isinstance(secret, str) else None)


def _registration(issuer: Issuer, public_url: str) -> dict[str, Any]:
    """Without a secret where that will do."""
    methods = issuer.token_endpoint_auth_methods_supported
    known = [each for each in ("none", "client_secret_basic", "client_secret_post") if each in methods]
    return {**description(public_url), **({"token_endpoint_auth_method": known[0]} if known else {})}


def description(public_url: str) -> Mapping[str, Any]:
    """This gateway as a client, for registrations; also the document at `/oauth/client.json`, with its `client_id`."""
    return {
        "client_name": "Shepherd",
        "redirect_uris": [redirect_uri(public_url)],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "application_type": "web" if public_url.startswith("https://") else "native",
        "token_endpoint_auth_method": "none",
    }


def redirect_uri(public_url: str) -> str:
    """Where users are sent back to."""
    return f"{public_url}/oauth/callback"


def begin(
    server_url: str, found: tuple[_Resource, Issuer], client: OAuthClient, public_url: str, before: Grant | None = None
) -> tuple[str, str, Started]:
    """The URL for the user's browser, the state in it, and what to remember.

    What was granted `before`, by the same issuer, is asked for again, with what was found to be missing of it:
    otherwise whoever signs in for more would lose what they have.
    """
    resource, issuer = found
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
    scope = " ".join(resource.scopes_supported) or None
    if before is not None and before.issuer == issuer.issuer:
        scope = joined(scope, before.asked, before.scope, before.wanted)
    started = Started(
        issuer=issuer.issuer,
        token_url=issuer.token_endpoint,
        client_id=client.client_id,
        client_secret=client.client_secret,
        resource=resource.resource or server_url,
        scope=scope,
        verifier=verifier,
        redirect_uri=redirect_uri(public_url),
        iss_required=issuer.authorization_response_iss_parameter_supported,
        post=issuer.post,
    )
    challenge = str(create_s256_code_challenge(verifier))  # pyright: ignore[reportUnknownArgumentType]
    url = prepare_grant_uri(  # pyright: ignore[reportUnknownVariableType]
        issuer.authorization_endpoint,
        client.client_id,
        "code",
        redirect_uri=started.redirect_uri,
        scope=scope,
        state=state,
        resource=started.resource,
        code_challenge=challenge,
        code_challenge_method="S256",
    )
    return str(url), state, started  # pyright: ignore[reportUnknownArgumentType]


def read_callback(url: str) -> Callback:
    """What is in the address the user was sent back to. Raises `McpFailure`."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    if "error" in query:
        raise broken("The authorization server refused the access.", 401)
    code, state, iss = (query.get(name, []) for name in ("code", "state", "iss"))
    if len(code) != 1 or len(state) != 1 or len(iss) > 1:
        raise broken("This is not an address that a sign-in ends at.", 401)
    return Callback(parts._replace(query="", fragment="").geturl(), code[0], state[0], iss[0] if iss else None)


async def finish(network: httpx2.AsyncBaseTransport, started: Started, callback: Callback) -> Issued:
    """The tokens. Raises `McpFailure`, also for an answer at another address, or of another issuer, than was asked."""
    if callback.address != started.redirect_uri:
        raise broken("The sign-in ended at another address than the one that was given.", 401)
    if callback.iss != started.issuer and (callback.iss is not None or started.iss_required):
        raise broken("The answer comes from another authorization server than the one that was asked.", 401)
    fields = {
        "code": callback.code,
        "redirect_uri": started.redirect_uri,
        "code_verifier": started.verifier,
        "resource": started.resource,
    }
    client = tokens.Client(started.client_id, started.client_secret, post=started.post)
    return await tokens.redeem(network, started.token_url, client, fields)


def _descriptions(issuer: str) -> list[str]:
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    return [
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}/.well-known/openid-configuration{path}",
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
    ]


def _covers(resource: str, server_url: str) -> bool:
    mine, asked = urlsplit(resource), urlsplit(server_url)
    same = (mine.scheme, mine.netloc.lower()) == (asked.scheme, asked.netloc.lower())
    path = mine.path.rstrip("/")
    return same and (asked.path.rstrip("/") == path or asked.path.startswith(f"{path}/"))


async def _first(network: httpx2.AsyncBaseTransport, urls: Mapping[str, None]) -> dict[str, Any]:
    last: McpFailure | None = None
    for url in urls:
        try:
            return await tokens.fetch(network, url)
        except McpFailure as failure:
            last = failure
    assert last is not None
    raise last


def _read(said: dict[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError:
        raise broken("What is said about signing in cannot be understood.", 401) from None
