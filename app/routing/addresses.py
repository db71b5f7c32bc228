"""Addresses of workers, as people write them: brought into one form, or refused. Pure.

A worker is what its URL is, so two ways to write one URL must not be two workers. And what cannot be an address should
be said to whoever wrote it, not be probed or listened to in vain for ever.

Source: RFC 3986, sections 3.2 and 6.2; zmq_tcp(7).
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from app.http1.authority import bracketed
from app.turn.errors import InvalidRequest

_PORTS = {"http": 80, "https": 443}
_SECRETS = "A worker's URL holds no credentials and no query: its key is api_key."


def worker_url(text: str) -> str:
    """A worker's base URL in its one form: without `/v1`, the port that goes without saying, and capitals in the host.

    Raises `InvalidRequest`.
    """
    if not text.lower().startswith(("http://", "https://")):
        raise _invalid("A worker's URL begins with http:// or https://.", "url")
    parts = _split(text, "url")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise _invalid(_SECRETS, "url")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    port = parts.port
    plain = port is None or port == _PORTS[parts.scheme]
    return f"{parts.scheme}://{_host(parts)}{'' if plain else f':{port}'}{path}"


def events_address(text: str) -> str:
    """Where an engine tells what its cache holds, as it was written. Raises `InvalidRequest`.

    `tcp://host:port`, with the socket for replays behind a comma; `ipc://path`; or http, https, grpc or grpcs.
    """
    stream, comma, replay = text.partition(",")
    for each in (stream, replay) if comma else (stream,):
        parts = _split(each, "kv_events")
        socket = parts.scheme in ("tcp", "ipc")
        if not socket and (comma or parts.scheme not in ("http", "https", "grpc", "grpcs")):
            raise _invalid(f"'{text}' is no address of cache events: tcp://, http:// or grpc://.", "kv_events")
        if parts.hostname == "*":
            raise _invalid(f"'{text}' is where an engine listens; what is needed is where it is reached.", "kv_events")
        if parts.port is None and parts.scheme in ("tcp", "grpc", "grpcs"):
            raise _invalid(f"'{each}' has no port.", "kv_events")
    return text


def _split(text: str, param: str) -> SplitResult:
    """The parts of an address that has a place where it leads to, with a port that can be one."""
    refusal = _invalid(f"'{text}' is no address.", param)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise refusal
    try:
        parts = urlsplit(text)
        port = parts.port
        if "[" in parts.netloc:
            ip_address(parts.hostname or "")
    except ValueError:
        raise refusal from None
    if port == 0 or not (parts.hostname or (parts.scheme == "ipc" and parts.path)):
        raise refusal
    return parts


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return bracketed(str(ip_address(host)) if "[" in parts.netloc else host)


def _invalid(message: str, param: str) -> InvalidRequest:
    return InvalidRequest(message, param=param, code="invalid_value")
