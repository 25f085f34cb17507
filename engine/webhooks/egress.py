"""One POST to an address that was looked at, and nothing else of HTTP.

A name is resolved once for each delivery. All its addresses must be permitted, and the connection
goes to one of those, not to the name, so a resolver that answers otherwise a moment later changes
nothing (DNS rebinding). `Host`, SNI and the certificate's name stay those of the URL. Redirects are
answers like others; proxies and other settings of the environment are not looked at.

Of the answer only the status and `Retry-After` are read, and all of it has to happen within
`DEADLINE_S`, however slowly it drips.
"""

import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpcore

from engine.clock import stopwatch
from engine.errors import InvalidInput
from engine.webhooks.addresses import (
    Address,
    Network,
    Target,
    parse_address,
    parse_url,
    permitted,
    within,
)

DEADLINE_S = 15.0
ADDRESSES_MAX = 4
"""So many addresses of a name are tried."""

Resolve = Callable[[str, int], Iterable[str]]
"""The addresses of a name; raises `OSError` if there are none."""


class Refused(Exception):
    """No connection was made, for this reason."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt: a status, or the `error` why there is none."""

    status_code: int | None
    error: str | None
    took_ms: int
    retry_after: str | None = None

    @property
    def success(self) -> bool:
        """Whether the receiver has it: any 2xx."""
        return self.status_code is not None and 200 <= self.status_code < 300


def system_resolve(host: str, port: int) -> list[str]:
    """What the system's resolver says, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Egress:
    """Sends deliveries. May be used from any thread.

    `allowed` are networks that may be connected to though they are not public, there by plain HTTP,
    too.
    """

    def __init__(
        self,
        allowed: Sequence[Network] = (),
        *,
        resolve: Resolve = system_resolve,
        deadline_s: float = DEADLINE_S,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.allowed = tuple(allowed)
        self._resolve = resolve
        self._deadline_s = deadline_s
        self._given_context = ssl_context

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        import httpx  # not before something is sent

        return self._given_context or httpx.create_ssl_context(trust_env=False)

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Send it once. Whatever goes wrong is in the outcome."""
        began_ms = stopwatch()
        status, error, retry_after = None, None, None
        try:
            status, retry_after = self._post(url, body, headers)
        except Refused as refusal:
            error = str(refusal)
        except InvalidInput as refusal:
            error = refusal.message
        except (httpcore.TimeoutException, TimeoutError):
            error = "no answer in time"
        except (httpcore.ConnectError, ssl.SSLError) as failure:
            # httpcore's own error has the one that it stands for as its argument.
            cause = failure if isinstance(failure, ssl.SSLError) else next(iter(failure.args), None)
            error = "no connection"
            if isinstance(cause, ssl.SSLError):
                error = f"TLS: {cause.reason or 'failed'}"
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError):
            error = "the connection was lost, or the answer is no HTTP"
        return Outcome(status, error, stopwatch() - began_ms, retry_after)

    def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str | None]:
        target = parse_url(url, self.allowed)
        ends_ms = stopwatch() + int(self._deadline_s * 1000)

        def left_s() -> float:
            left = (ends_ms - stopwatch()) / 1000
            if left <= 0:
                raise httpcore.ReadTimeout
            return left

        with httpcore.ConnectionPool(
            ssl_context=self._ssl_context if target.scheme == "https" else None,
            max_connections=1,
            network_backend=_Vetted(self._vetted(target), left_s),
        ) as pool:
            sent = {**headers, "Accept": "*/*", "Connection": "close"}
            # The body of the answer is left where it is: leaving the block closes the connection.
            with pool.stream("POST", url, headers=[*sent.items()], content=body) as response:
                named = dict(reversed([(n.lower(), value) for n, value in response.headers]))
                retry_after = named.get(b"retry-after")
                return response.status, None if retry_after is None else retry_after.decode(
                    "latin-1"
                )

    def _vetted(self, target: Target) -> list[str]:
        """The addresses to connect to.

        Raises:
            Refused: there is none, or one of them is not permitted.
        """
        if target.address is not None:
            found: list[Address | None] = [target.address]
        else:
            try:
                # UnicodeError: the name cannot be encoded, which the resolver finds out first.
                found = [*map(parse_address, self._resolve(target.host, target.port))]
            except (OSError, UnicodeError):
                raise Refused("the host has no address") from None
        addresses: list[Address] = []
        for address in found:
            if address is None or not permitted(address, self.allowed):
                raise Refused("the host has an address that is not public")
            if target.scheme == "http" and not within(address, self.allowed):
                raise Refused("a public address is only sent to by https")
            addresses.append(address)
        if not addresses:
            raise Refused("the host has no address")
        return [str(address) for address in addresses[:ADDRESSES_MAX]]


class _Vetted(httpcore.NetworkBackend):
    """Connects to one of these addresses, whichever host it is told."""

    def __init__(self, addresses: Sequence[str], left_s: Callable[[], float]) -> None:
        self._addresses = addresses
        self._left_s = left_s
        self._system = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        del host, timeout, local_address
        failure: Exception = httpcore.ConnectError("no address")
        for address in self._addresses:
            try:
                stream = self._system.connect_tcp(
                    address, port, self._left_s(), socket_options=socket_options
                )
            except httpcore.ConnectError as error:
                failure = error
            else:
                return _Bounded(stream, self._left_s)
        raise failure


class _Bounded(httpcore.NetworkStream):
    """A stream whose every step has to happen in what is left of the time."""

    def __init__(self, stream: httpcore.NetworkStream, left_s: Callable[[], float]) -> None:
        self._stream = stream
        self._left_s = left_s

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        return self._stream.read(max_bytes, self._left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        self._stream.write(buffer, self._left_s())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        del timeout
        started = self._stream.start_tls(ssl_context, server_hostname, self._left_s())
        return _Bounded(started, self._left_s)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
