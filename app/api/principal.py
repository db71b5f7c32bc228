"""Who is asking. Every room takes the tenant as an argument; this is the one place that finds out which it is.

The door stands before all handlers, so that one that was forgotten is locked, not open. A path needs the scope `admin`
under `/admin` and where the fleet is changed, none where probes and documentation are, and `data` everywhere else.
"""

from __future__ import annotations

from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from litestar.types import ASGIApp, Receive, Scope, Send

from app.api.errors import refuse
from app.tenancy.principal import Principal
from app.tenancy.principal import Scope as KeyScope
from app.turn.errors import Forbidden, GatewayError, Unauthenticated

_PUBLIC = ("/health", "/liveness", "/readiness", "/docs", "/openapi.json", "/oauth")
_RULING = ("/admin", "/workers", "/routing")
_KEPT = "shepherd.principal"
_READING = frozenset(("GET", "HEAD", "OPTIONS"))


class Gatekeeper(Protocol):
    """Knows the keys."""

    async def admit(self, presented: str | None) -> Principal:
        """Who presents this key. Raises `Unauthenticated`, `Unavailable`."""
        ...


class Door:
    """An ASGI app that lets through to another only those who may."""

    def __init__(self, app: ASGIApp, gate: Gatekeeper) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit, or answer 401, 403 or 503."""
        path = scope["path"]
        if not _is_public(path):
            try:
                principal = await self._gate.admit(_presented(scope))
                _check(path, principal)
                if not principal.id:
                    _check_page(scope)
            except GatewayError as error:
                await refuse(scope, send, error)
                return
            cast("dict[str, Any]", scope)[_KEPT] = principal
        await self._app(scope, receive, send)  # pyright: ignore[reportArgumentType]


def principal_of(scope: Scope) -> Principal:
    """Who sent the request."""
    return cast("dict[str, Any]", scope)[_KEPT]


def is_from_elsewhere(scope: Scope) -> bool:
    """Whether it was a page of another origin that made the browser ask."""
    headers = {name: value for name, value in scope["headers"] if name in {b"origin", b"host"}}
    origin = headers.get(b"origin")
    return origin is not None and urlsplit(origin).netloc != headers.get(b"host", b"")


def known_tenant(scope: Scope) -> str | None:
    """The tenant of a request, where it was asked who sends it, and they were let in."""
    found = cast("dict[str, Any]", scope).get(_KEPT)
    return found.tenant if isinstance(found, Principal) else None


def tenant_of(scope: Scope) -> str:
    """The tenant of a request."""
    return principal_of(scope).tenant


def _is_public(path: str) -> bool:
    return any(path == public or path.startswith(f"{public}/") for public in _PUBLIC)


def _check(path: str, principal: Principal) -> None:
    ruled = any(path == ruling or path.startswith(f"{ruling}/") for ruling in _RULING)
    needed: KeyScope = "admin" if ruled else "data"
    if needed not in principal.scopes:
        raise Forbidden(f"This API key lacks the scope '{needed}'.", code="insufficient_scope")


def _check_page(scope: Scope) -> None:
    """Where nobody needs a key, being able to reach the server is being allowed to; pages that a browser on this
    machine shows are not meant by that."""
    # What is read by a page of another origin its browser does not show it.
    if scope["type"] == "http" and scope["method"] not in _READING and is_from_elsewhere(scope):
        raise Forbidden("Pages of other origins may not change anything here.", code="other_origin")


def _presented(scope: Scope) -> str | None:
    """The key as OpenAI's clients send it, or as Anthropic's do. Raises `Unauthenticated` for two different ones."""
    found: set[str] = set()
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                found.add(key.strip())
        elif name == b"x-api-key":
            found.add(value.decode("latin-1").strip())
    if len(found) > 1:
        raise Unauthenticated("The request carries two different API keys.")
    return next(iter(found), None)
