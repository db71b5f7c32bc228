"""What a server says to somebody without a token (RFC 9728, section 5.1), or with one that is good for less than is
needed (RFC 6750, section 3.1): where it describes itself, and what it takes."""

from __future__ import annotations

import re

import httpx2
from msgspec import Struct

_NOBODY = b'{"jsonrpc":"2.0","id":0,"method":"ping"}'
_PARAMETER = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.){0,4096})"|([^\s,"]{1,4096}))')
_LONGEST_SCOPE = 1024
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*\Z")


class Challenge(Struct, frozen=True):
    """`metadata_url` is where the server's description is, `scope` what is needed; None where that is not said."""

    metadata_url: str | None = None
    scope: str | None = None
    error: str = ""

    @property
    def lacks(self) -> str | None:
        """The scopes that a token has too little of; empty where they are not said, None where that is not it."""
        return self.scope or "" if self.error == "insufficient_scope" else None


async def challenged(network: httpx2.AsyncBaseTransport, server_url: str) -> Challenge:
    """Ask without a token. Whatever goes wrong is as if nothing had been said."""
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "user-agent": "shepherd",
    }
    try:
        request = httpx2.Request("POST", server_url, content=_NOBODY, headers=headers)
        request.extensions["timeout"] = httpx2.Timeout(10).as_dict()
        answer = await network.handle_async_request(request)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError):
        return Challenge()
    # Its headers are all that is wanted: the body is not read.
    await answer.aclose()
    return read_challenge(answer.headers.get("www-authenticate", "")) if answer.status_code == 401 else Challenge()


def read_challenge(header: str) -> Challenge:
    """What a `www-authenticate` header says."""
    scheme, _, rest = header[:8192].partition(" ")
    if scheme.lower() != "bearer":
        return Challenge()
    found = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(rest)}
    scope = found.get("scope", "")
    said = scope if _SCOPE.match(scope) and len(scope) <= _LONGEST_SCOPE else None
    return Challenge(found.get("resource_metadata") or None, said, found.get("error", ""))
