"""What stands between a client and a server and loses the answer."""

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Losing:
    """A socket that reads one request whole, does something with it, and says `answer` at most."""

    def __init__(self, answer: bytes = b"", to: Callable[[bytes], None] | None = None) -> None:
        self.request = b""
        self._answer = answer
        self._to = to
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The one request was answered, or there was none."""
        self._socket.close()
        self._thread.join()

    def header(self, name: str) -> str:
        """A header of the request."""
        lines = self.request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        headers = {found.lower(): value for found, value in (line.split(": ", 1) for line in lines)}
        return headers[name.lower()]

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            self.request = read_request(connection)
            if self._to is not None:
                self._to(self.request)
            connection.sendall(self._answer)


def read_request(connection: socket.socket) -> bytes:
    """One request, head and body."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += connection.recv(65536)
    head, _, body = found.partition(b"\r\n\r\n")
    [length] = [
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def passed_on(url: str) -> Callable[[bytes], None]:
    """Hand a request to a real server and keep its answer to oneself."""

    def hand(request: bytes) -> None:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port)) as server:
            server.sendall(request)
            assert server.recv(65536).startswith(b"HTTP/1.1 201")

    return hand
