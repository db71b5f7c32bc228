"""One family of errors. Each carries the HTTP status it deserves, without knowing HTTP.

`GatewayError` is the world's fault and reaches the client in its dialect's error body; `LocalProtocolError` is ours.
"""

from __future__ import annotations

from msgspec import Struct


class Failure(Struct, frozen=True):
    """A `GatewayError` as a value: what is stored with a failed response and fed to the machine.

    `retry_after` is in how many seconds it may go better, where somebody said so.
    """

    status: int
    code: str | None
    message: str
    param: str | None = None
    retry_after: float | None = None

    @property
    def error(self) -> GatewayError:
        """This value as something to raise."""
        return GatewayError(
            self.message, code=self.code, param=self.param, status=self.status, retry_after=self.retry_after
        )


class GatewayError(Exception):
    """A request that cannot be served. `param` names the offending field of the request, as a path."""

    status = 500
    code: str | None = "server_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status

    @property
    def failure(self) -> Failure:
        """This error as a value."""
        return Failure(self.status, self.code, self.message, self.param, self.retry_after)


class InvalidRequest(GatewayError):
    """400: the request is wrong; `param` says where."""

    status = 400
    code = None


class Unauthenticated(GatewayError):
    """401: who are you?"""

    status = 401
    code = "invalid_api_key"


class Forbidden(GatewayError):
    """403: we know you, and no."""

    status = 403
    code = "forbidden"


class NotFound(GatewayError):
    """404. What belongs to another tenant looks exactly like what does not exist."""

    status = 404
    code = None


class Conflict(GatewayError):
    """409."""

    status = 409
    code = "conflict"


class TooLarge(GatewayError):
    """413: the body is over the limit."""

    status = 413
    code = "request_too_large"


class RateLimited(GatewayError):
    """429."""

    status = 429
    code = "rate_limit_exceeded"


class UpstreamRejected(GatewayError):
    """The worker answered 4xx: its status and message are kept."""

    status = 400
    code = "upstream_rejected"


class UpstreamFailed(GatewayError):
    """502: the worker broke, answered 5xx or spoke nonsense."""

    status = 502
    code = "upstream_error"


class NoWorker(GatewayError):
    """503: nobody can serve this now."""

    status = 503
    code = "no_workers_available"


class Unavailable(GatewayError):
    """503: the gateway itself cannot: it is shutting down, or its database does not answer."""

    status = 503
    code = "unavailable"


class UpstreamTimeout(GatewayError):
    """504: the worker took too long."""

    status = 504
    code = "upstream_timeout"


class LocalProtocolError(Exception):
    """We fed a machine an event its phase does not accept: a bug of ours, never the world's."""
