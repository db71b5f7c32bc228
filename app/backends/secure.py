"""The client for https: aiohttp, whose TLS, proxies and certificates are not worth writing again.

It costs several times what the plain client does, which is nothing beside a provider's latency.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp

from app.backends.plain import why
from app.http1.transport import Answer, Breakage, Call, Timeouts, TransportError

_LARGE = 512 * 1024


class SecureTransport:
    """The `Transport` port for https URLs (http ones work too). Lives on the running event loop.

    Certificates are checked against the system's. `proxy` is the URL of a proxy; none is taken from the environment,
    and neither are credentials from a netrc file.
    """

    def __init__(self, proxy: str | None = None) -> None:
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    async def send(self, call: Call) -> Answer:
        """See `Transport`."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=self._proxy,
                auto_decompress=False,
            )
        deadline = asyncio.get_running_loop().time() + call.timeouts.total
        clock = _Clock(call.timeouts, deadline)
        async with clock.limited(has_head=False):
            response = await self._session.request(
                call.method,
                call.url,
                headers=call.headers,
                data=_payload(call.body),
                timeout=aiohttp.ClientTimeout(total=None, connect=call.timeouts.connect),
                allow_redirects=False,
            )
        return _SecureAnswer(response, clock)

    async def close(self) -> None:
        """See `Transport`."""
        if self._session is not None:
            await self._session.close()


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    """aiohttp wants large bodies as files, which cost a thread's work each."""
    return io.BytesIO(body) if len(body) > _LARGE else body or None


class _SecureAnswer:
    def __init__(self, response: aiohttp.ClientResponse, clock: _Clock) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._clock = clock

    async def read(self) -> bytes:
        """See `Answer`."""
        async with self._clock.limited(has_head=True):
            data = await self._response.content.readany()
        self._clock.has_body = True
        return data

    async def hear(self, take: Callable[[bytes], bool]) -> None:
        """See `Answer`."""
        data = await self.read()
        while take(data) and data:
            data = await self.read()

    def release(self, *, ending: bool = False) -> None:
        """See `Answer`. A connection is kept only when the body was read to its end, `ending` or not."""
        del ending
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class _Clock:
    """The timeouts of one exchange, and aiohttp's exceptions as the port's."""

    def __init__(self, timeouts: Timeouts, deadline: float) -> None:
        self.has_body = False
        self._timeouts = timeouts
        self._deadline = deadline

    @asynccontextmanager
    async def limited(self, *, has_head: bool) -> AsyncGenerator[None]:
        """For one read, or for the head. Raises `TransportError`."""
        timeouts = self._timeouts
        patience = timeouts.idle if self.has_body else timeouts.first_byte
        left = self._deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(patience, left)):
                yield
        except aiohttp.ConnectionTimeoutError as error:
            raise TransportError("connect_timeout", timeouts.connect_over) from error
        except TimeoutError as error:
            if left < patience:
                raise TransportError("total_timeout", timeouts.total_over) from error
            kind: Breakage = "idle_timeout" if self.has_body else "first_byte_timeout"
            raise TransportError(kind, f"The worker sent nothing for {patience:g} seconds.") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _broken(error, has_head=has_head) from error


def _broken(error: Exception, *, has_head: bool) -> TransportError:
    match error:
        case aiohttp.ClientSSLError():
            return TransportError("unreachable", "The worker cannot be reached: the TLS handshake failed.")
        case aiohttp.ClientConnectorError():
            return TransportError("unreachable", f"The worker cannot be reached: {why(error.os_error)}.")
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | OSError():
            if has_head:
                return TransportError("cut", "The worker's answer stopped before it was complete.")
            return TransportError("disconnected", "The worker closed the connection without an answer.")
        case _:
            return TransportError("nonsense", f"The worker's answer cannot be read: {type(error).__name__}.")
