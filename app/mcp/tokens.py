"""Getting tokens from token endpoints: the requests of OAuth, and nothing about where tokens are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx2
import msgspec
from authlib.oauth2.rfc6749.parameters import prepare_token_request  # pyright: ignore[reportUnknownVariableType]
from msgspec import Struct

from app.mcp.failure import broken
from app.mcp.secrets import Answer, ClientCredentials, Grant, Issued, TokenExchange

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_MOST_BYTES = 65_536
_ERROR_CODE = re.compile(r"[a-z_]{1,40}\Z")
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


class Client(Struct, frozen=True):
    """Who asks. With `post`, the secret is in the form, else in a header; without one, there is only the id."""

    client_id: str
    client_secret: str | None
    post: bool = False


async def fetch(
    at: httpx2.AsyncBaseTransport,
    url: str,
    *,
    data: str | None = None,
    body: bytes | None = None,
    auth: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """A JSON object, from GET, or from POST with the form `data` or the JSON `body`.

    Raises `McpFailure`, whose text quotes nothing of what was sent or answered.
    """
    headers = {"accept": "application/json", "user-agent": "shepherd", "accept-encoding": "identity"}
    if data is not None:
        headers["content-type"] = "application/x-www-form-urlencoded"
    elif body is not None:
        headers["content-type"] = "application/json"
    content = data.encode() if data is not None else body
    method = "GET" if content is None else "POST"
    basic = httpx2.BasicAuth(*auth) if auth is not None else None
    client = httpx2.AsyncClient(transport=_Shared(at), timeout=10, trust_env=False)
    try:
        async with client.stream(method, url, content=content, headers=headers, auth=basic) as answer:
            said = b""
            async for chunk in answer.aiter_bytes():
                said += chunk
                if len(said) > _MOST_BYTES:
                    raise broken("The authorization server answered with too much.")
            status = answer.status_code
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError, ValueError) as error:
        raise broken(f"The authorization server could not be asked ({type(error).__name__}).") from None
    if status not in {200, 201}:
        raise broken(f"The authorization server answered with HTTP status {status}{_reason(said)}.", 401)
    try:
        return msgspec.json.decode(said, type=dict[str, Any])
    except _UNREADABLE:
        raise broken("The authorization server answered with something that is not a JSON object.") from None


async def client_credentials(at: httpx2.AsyncBaseTransport, secret: ClientCredentials) -> Issued:
    """A token for the client itself. Raises `McpFailure`."""
    assert secret.token_url is not None
    fields = {"scope": secret.scope, "resource": secret.resource}
    client = Client(secret.client_id, secret.client_secret, post=secret.post)
    return await _issued(at, secret.token_url, "client_credentials", fields, client)


async def exchange(at: httpx2.AsyncBaseTransport, secret: TokenExchange) -> Issued:
    """A token for the server in exchange for the user's. Raises `McpFailure`."""
    fields = {
        "subject_token": secret.subject_token,
        "subject_token_type": secret.subject_token_type,
        "audience": secret.audience,
        "resource": secret.resource,
        "scope": secret.scope,
    }
    return await _issued(at, secret.token_url, _EXCHANGE, fields, Client(secret.client_id, secret.client_secret))


async def refresh(at: httpx2.AsyncBaseTransport, grant: Grant) -> Issued:
    """A new token for a user who signed in before. Raises `McpFailure` also when the user has to sign in again."""
    if grant.refresh_token is None:
        raise broken("The access has expired; sign in to the server again.", 401)
    fields = {"refresh_token": grant.refresh_token, "resource": grant.resource, "scope": grant.scope}
    client = Client(grant.client_id, grant.client_secret, post=grant.post)
    return await _issued(at, grant.token_url, "refresh_token", fields, client)


async def redeem(at: httpx2.AsyncBaseTransport, token_url: str, client: Client, fields: Mapping[str, str]) -> Issued:
    """The tokens for an authorization code. Raises `McpFailure`."""
    return await _issued(at, token_url, "authorization_code", fields, client)


async def _issued(
    at: httpx2.AsyncBaseTransport,
    url: str,
    grant_type: str,
    fields: Mapping[str, str | None],
    client: Client,
) -> Issued:
    given = {name: value for name, value in fields.items() if value}
    auth: tuple[str, str] | None = None
    if client.client_secret is None or client.post:
        given["client_id"] = client.client_id
        if client.client_secret is not None:
            given["client_secret"] = client.client_secret
    else:
        auth = (client.client_id, client.client_secret)
    body: str = prepare_token_request(grant_type, **given)
    said = await fetch(at, url, data=body, auth=auth)
    try:
        answer = msgspec.convert(said, Answer, strict=False)
    except msgspec.ValidationError:
        raise broken("The authorization server answered with something that is not a token.") from None
    if answer.token_type.lower() not in {"bearer", "n_a"}:
        raise broken("The authorization server issued a kind of token that is not supported.")
    return Issued(answer.access_token, answer.expires_in, answer.refresh_token, answer.scope)


def _reason(body: bytes) -> str:
    try:
        code = msgspec.json.decode(body, type=dict[str, Any]).get("error")
    except _UNREADABLE:
        return ""
    # One of a few words; anything longer could quote a token.
    return f" ({code})" if isinstance(code, str) and _ERROR_CODE.match(code) else ""


class _Shared(httpx2.AsyncBaseTransport):
    """A transport that stays open."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Nothing: it is not ours."""
