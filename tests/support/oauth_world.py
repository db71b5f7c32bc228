"""An MCP server that wants tokens, and the authorization server that issues them, in one ASGI app on loopback."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct, field

from tests.support.mcp_servers import asgi_server, demo


class OAuthWorld(Struct):
    """What it does can be changed; what it was asked is in `asked` (form fields and the Authorization header).

    With `rotates`, a refresh token is good for one use, and whoever uses it again loses the whole grant. With `hold`,
    the token endpoint has decided, and answers when that is set; `holding` says how many wait for it. `challenge` is
    what whoever has no token is told besides, and `moved` says where paths have gone to. `needs` are the scopes that
    the server wants of tokens, which are `granted` what was asked for, or, with `stingy`, only the first one of that.
    """

    origin: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    resource: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    valid: set[str] = field(default_factory=set)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    issued: int = 0
    expires_in: int = 3600
    refused: int = 0
    registered: int = 0
    fails: bool = False
    rotates: bool = False
    live: set[str] = field(default_factory=set)
    reused: int = 0
    challenge: str = ""
    needs: frozenset[str] = frozenset()
    stingy: bool = False
    granted: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    scope: str = ""
    hold: asyncio.Event | None = None
    holding: int = 0

    @property
    def url(self) -> str:
        return f"{self.origin}/mcp"

    def sign_in(self, authorization_url: str, **more: str) -> str:
        """The user agrees; the address their browser ends at."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(authorization_url).query).items()}
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        given = {"code": code, "state": query["state"], "iss": self.origin, **more}
        return f"{query['redirect_uri']}?" + "&".join(f"{name}={value}" for name, value in given.items() if value)

    def token(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if self.fails:
            return 400, {"error": "invalid_grant", "error_description": "sentinel-description"}
        if form["grant_type"] == "authorization_code":
            begun = self.codes.pop(form["code"], None)
            self.scope = "" if begun is None else begun.get("scope", "")
            self.scope = self.scope.split()[0] if self.stingy else self.scope
            proof = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
            if begun is None or begun["code_challenge"] != proof.decode() or form["resource"] != begun["resource"]:
                return 400, {"error": "invalid_grant"}
        if self.rotates and form["grant_type"] == "refresh_token":
            if form["refresh_token"] not in self.live:
                self.reused += 1
                self.live.clear()
                self.valid.clear()
                return 400, {"error": "invalid_grant"}
            self.live.discard(form["refresh_token"])
            self.valid.clear()
        self.issued += 1
        token = f"token-{self.issued}"
        self.valid.add(token)
        self.granted[token] = self.scope
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self.expires_in}
        if form["grant_type"] in {"authorization_code", "refresh_token"}:
            answer["refresh_token"] = f"refresh-{self.issued}"
            self.live.add(f"refresh-{self.issued}")
        return 200, answer


@asynccontextmanager
async def oauth_world() -> AsyncIterator[OAuthWorld]:
    world = OAuthWorld()
    app = demo().streamable_http_app(json_response=True)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        path = scope["path"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if path == "/mcp":
            token = headers.get("authorization", "").removeprefix("Bearer ")
            if token in world.valid and world.needs - frozenset(world.granted.get(token, "").split()):
                needs = " ".join(sorted(world.needs))
                said = f'Bearer error="insufficient_scope", scope="{needs}"'.encode()
                await _say(send, 403, {"error": "insufficient_scope"}, (b"www-authenticate", said))
                return
            if token not in world.valid:
                world.refused += 1
                told = [(b"www-authenticate", world.challenge.encode())] if world.challenge else []
                await _say(send, 401, {"error": "invalid_token"}, *told)
                return
            await app(scope, receive, send)
            return
        if path in world.moved:
            await _say(send, 307, {}, (b"location", world.moved[path].encode()))
            return
        body = (await receive()).get("body", b"")
        if path == "/.well-known/oauth-protected-resource/mcp":
            await _say(send, 200, world.resource)
        elif path == "/.well-known/oauth-authorization-server":
            await _say(send, 200, world.metadata)
        elif path == "/register":
            world.registered += 1
            await _say(send, 201, {"client_id": f"client-{world.registered}"})
        elif path == "/token":
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            world.asked.append({**form, "authorization": headers.get("authorization", "")})
            decided = world.token(form)
            if world.hold is not None:
                world.holding += 1
                await world.hold.wait()
            await _say(send, *decided)
        else:
            await _say(send, 404, {})

    async with asgi_server(outer) as port:
        world.origin = f"http://127.0.0.1:{port}"
        world.resource = {"resource": world.url, "authorization_servers": [world.origin], "scopes_supported": ["tools"]}
        world.metadata = {
            "issuer": world.origin,
            "authorization_endpoint": f"{world.origin}/authorize",
            "token_endpoint": f"{world.origin}/token",
            "registration_endpoint": f"{world.origin}/register",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }
        yield world


async def _say(send: Any, status: int, value: Any, *more: tuple[bytes, bytes]) -> None:
    head = [(b"content-type", b"application/json"), *more]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})
