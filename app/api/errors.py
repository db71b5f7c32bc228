"""Errors as clients see them: one body, one table of types, for ours, for the framework's and for the unforeseen."""

from __future__ import annotations

import logging
import math
from typing import Any, cast

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap, Scope, Send
from msgspec import Struct

from app.telemetry.logs import request_id
from app.turn.errors import GatewayError

_log = logging.getLogger(__name__)

# What is not listed is `invalid_request_error` below 500 and `server_error` from there on.
TYPES = {401: "authentication_error", 403: "permission_error", 409: "conflict_error", 429: "rate_limit_error"}


class ErrorDetail(Struct, frozen=True):
    """What went wrong. `param` is the path of the offending field; `code` is for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Struct, frozen=True):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def error_type(status: int) -> str:
    """The API's name for a kind of error."""
    return TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    """An error as JSON."""
    return msgspec.json.encode(ErrorBody(ErrorDetail(message, error_type(status), param, code)))


def _answer(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response[bytes]:
    # Who sent too much may still be sending; the connection is of no further use.
    extra = {"connection": "close"} if status == 413 else {}
    return Response(body, status_code=status, media_type="application/json", headers={**(headers or {}), **extra})


def gateway_error(_request: Request[Any, Any, Any], error: GatewayError) -> Response[bytes]:
    """An error of ours: it knows its status, code and param."""
    if error.status >= 500:
        _log.warning("answered %d: %s", error.status, error.message, extra={"code": error.code})
    headers = {} if error.retry_after is None else {"retry-after": str(math.ceil(error.retry_after))}
    return _answer(error.status, error_body(error.status, error.message, error.param, error.code), headers)


def framework_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """An error of the framework: no such route, wrong method, a query that does not validate."""
    status, path = error.status_code, request.scope["path"]
    if status == 500:
        return unforeseen(request, error)
    message, param, code = error.detail, None, None
    if isinstance(error.extra, list) and error.extra:
        problem = cast("dict[str, Any]", error.extra[0])
        param = _as_sent(request, str(problem.get("key")))
        message = f"Invalid '{param}': {problem.get('message')}"
        code = "invalid_value" if problem.get("source") == "query" else None
    elif status == 404:
        message = f"Unknown request URL: {request.scope['method']} {path}. Please check the URL for typos."
    elif status == 405:
        message = f"Not allowed to {request.scope['method']} on {path}."
    return _answer(status, error_body(status, message, param, code), error.headers)


def _as_sent(request: Request[Any, Any, Any], name: str) -> str:
    """What clients call the parameter that the handler calls `name`."""
    field = request.route_handler.parsed_fn_signature.parameters.get(name)
    return getattr(field and field.kwarg_definition, "name", None) or name


def unforeseen(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """A fault of ours: the client learns the request's id, the log the rest."""
    _log.error("unhandled error", exc_info=error)
    message = f"The server had an error while processing your request. Its id is {request_id.get()}."
    return _answer(500, error_body(500, message, None, "internal_error"))


async def refuse(scope: Scope, send: Send, error: GatewayError) -> None:
    """Answer with an error of ours what never came to a handler."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": error.message})
        return
    headers = [(b"content-type", b"application/json")]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after is not None:
        headers.append((b"retry-after", str(int(error.retry_after)).encode()))
    body = error_body(error.status, error.message, error.param, error.code)
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


HANDLERS = cast(  # pyright: ignore[reportUnknownVariableType]
    "ExceptionHandlersMap",
    {GatewayError: gateway_error, HTTPException: framework_error, Exception: unforeseen},
)
