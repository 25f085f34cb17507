"""Transports whose exchanges have an end in time, however slowly the other side sends.

A time-out of httpx is the longest silence: a server that sends a byte now and then holds whoever
waits for as long as it likes. Inside a `time_limit` no single operation on a connection waits for
longer than what is left of the whole, and what comes too late is a time-out of httpx.

with time_limit(300):
    http.get(url)    # http has one of these transports
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import httpcore
import httpx

from engine.clock import stopwatch

_WRITE_BYTES = 65_536
"""So much is written before it is looked at the time again."""
_WHY = "the time that all may take is over"

_over_ms: ContextVar[float | None] = ContextVar("over_ms", default=None)
"""When it is over, by the stopwatch."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """What is asked of these transports inside takes no longer, all together."""
    before = _over_ms.set(stopwatch() + seconds * 1000)
    try:
        yield
    finally:
        _over_ms.reset(before)


@contextmanager
def beside() -> Iterator[None]:
    """What is done inside is not counted."""
    before_ms, over_ms = stopwatch(), _over_ms.get()
    try:
        yield
    finally:
        if over_ms is not None:
            _over_ms.set(over_ms + stopwatch() - before_ms)


def _left_s() -> float | None:
    over_ms = _over_ms.get()
    return None if over_ms is None else (over_ms - stopwatch()) / 1000


class DeadlineTransport(httpx.BaseTransport):
    """A plain `httpx.HTTPTransport`, whose exchanges end with the time."""

    def __init__(self) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=_Backend(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        assert isinstance(request.stream, httpx.SyncByteStream)
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _as_httpx():
            answer = self._pool.handle_request(sent)
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _as_httpx():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        with _as_httpx():
            self._answer.close()


@contextmanager
def _as_httpx() -> Iterator[None]:
    """Raise the error of httpx that has the same name; it has one for each."""
    try:
        yield
    except (
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.TimeoutException,
        httpcore.UnsupportedProtocol,
    ) as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from error


class _Backend(httpcore.NetworkBackend):
    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        if _left_s() is None:
            return _Stream(
                self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
            )
        failure: httpcore.NetworkError | httpcore.ConnectTimeout | None = None
        for address in _addresses(host, port, _at_most(timeout, httpcore.ConnectTimeout)):
            left_s = _at_most(timeout, httpcore.ConnectTimeout)
            try:
                stream = self._backend.connect_tcp(
                    address, port, left_s, local_address, socket_options
                )
            except (httpcore.NetworkError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream)
        raise failure or httpcore.ConnectError(f"{host} has no address")


def _addresses(host: str, port: int, timeout_s: float | None) -> list[str]:
    """The IP addresses of a host, in the order in which the system wants them tried.

    The system's look-up has no time-out; so another thread waits for it, and may go on to.
    """
    found: list[str] = []
    failed: list[OSError | UnicodeError] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failed.append(error)
        else:
            found.extend(str(answer[4][0]) for answer in answers)

    thread = threading.Thread(target=look_up, name=f"look up {host}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise httpcore.ConnectTimeout(_WHY)
    if failed:
        raise httpcore.ConnectError(str(failed[0]))
    return list(dict.fromkeys(found))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _at_most(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for at in range(0, len(buffer), _WRITE_BYTES):
            left_s = _at_most(timeout, httpcore.WriteTimeout)
            self._stream.write(buffer[at : at + _WRITE_BYTES], left_s)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left_s = _at_most(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left_s))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _at_most(timeout: float | None, over: type[httpcore.TimeoutException]) -> float | None:
    """How long one operation may wait; raises `over` if it may not any more."""
    left_s = _left_s()
    if left_s is None:
        return timeout
    if left_s <= 0:
        raise over(_WHY)
    return left_s if timeout is None else min(timeout, left_s)


class AsyncDeadlineTransport(httpx.AsyncBaseTransport):
    """`DeadlineTransport` on asyncio."""

    def __init__(self) -> None:
        self._transport = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        async with _in_time():
            answer = await self._transport.handle_async_request(request)
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        answer.stream = _AsyncBody(answer.stream)
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = aiter(self._stream)
        while True:
            async with _in_time():
                part = await anext(parts, None)
            if part is None:
                return
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_left_s()):
            yield
    except TimeoutError:
        raise httpx.ReadTimeout(_WHY) from None
