"""What goes wrong at workers, as the one family of errors. Here and nowhere else foreign failures become ours.

A client learns what the engine said about its request, never where the worker is or which key it wants. What another
worker might do better is decided by `may_retry_elsewhere`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec.structs import replace

from app.dialects.openai_chat.faults import EngineError, EngineFault, read_error
from app.http1.transport import Breakage, TransportError
from app.turn.errors import Failure, UpstreamFailed, UpstreamRejected, UpstreamTimeout

_SECONDS = re.compile(r"[0-9]{1,5}")

_BROKEN: dict[Breakage, tuple[int, str]] = {
    "unreachable": (502, "upstream_unreachable"),
    "connect_timeout": (504, "upstream_connect_timeout"),
    "disconnected": (502, "upstream_disconnected"),
    "cut": (502, "upstream_stream_cut"),
    "nonsense": (502, "upstream_invalid"),
    "first_byte_timeout": (504, "upstream_timeout"),
    "idle_timeout": (504, "upstream_timeout"),
    "total_timeout": (504, "upstream_timeout"),
}

CUT = Failure(502, "upstream_stream_cut", "The worker's answer stopped before it was complete.")

NO_ANSWER = Failure(502, "upstream_invalid", "The worker's answer is neither a stream of events nor JSON.")


def of_transport(error: TransportError) -> Failure:
    """Why an exchange broke."""
    status, code = _BROKEN[error.kind]
    return Failure(status, code, error.message)


def of_status(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Failure:
    """Why a worker answered with an HTTP status that is not 200. When it wants to be asked again is passed on."""
    failure = _of_engine(status, read_error(body))
    wanted = (headers or {}).get("retry-after", "")
    # It may be a date, which is for clocks that agree.
    if failure.status in (429, 503) and _SECONDS.fullmatch(wanted):
        return replace(failure, retry_after=float(wanted))
    return failure


def of_fault(fault: EngineFault) -> Failure:
    """Why an answer that began well cannot be used."""
    if fault.reported is None:
        return Failure(502, "upstream_invalid", fault.message)
    return _of_engine(fault.reported.status or 500, fault.reported)


def _of_engine(status: int, said: EngineError) -> Failure:
    if said.code == "context_length_exceeded":
        # Some engines call it their own failure.
        status = status if 400 <= status < 500 else 400
    if status in (401, 403, 407):
        # It is our key that is wrong, not the client's.
        return Failure(502, "upstream_unauthorized", "The worker does not accept the gateway's credentials.")
    if 400 <= status < 500:
        code = said.code or ("rate_limit_exceeded" if status == 429 else UpstreamRejected.code)
        return Failure(status, code, said.message or f"The worker refused the request with status {status}.")
    if status in (503, 529):
        return Failure(503, "upstream_overloaded", said.message or "The worker cannot take requests now.")
    if status == 504:
        return Failure(504, UpstreamTimeout.code, said.message or "The worker took too long.")
    if status < 400:
        return Failure(502, "upstream_invalid", f"The worker answered with the unexpected status {status}.")
    return Failure(502, UpstreamFailed.code, said.message or f"The worker failed with status {status}.")


def may_retry_elsewhere(failure: Failure) -> bool:
    """Whether a turn that failed before it said anything may fare better at another worker.

    Not when the worker took its time: the client has waited for a whole timeout already. Not when the request is what
    is wrong.
    """
    if failure.code == UpstreamTimeout.code:
        return False
    return failure.status >= 500 or failure.status in (408, 429)
