"""A resource server that answers however a test likes, and remembers what it was sent."""

import base64
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Heard:
    """One request; `signature` is its PAYMENT-SIGNATURE."""

    path: str
    signature: str | None
    headers: dict[str, str]


@dataclass(frozen=True)
class Say:
    """One answer. Without a status there is none: the connection is cut.

    What `drips`, `head` or `body`, is sent byte by byte, and has no end.
    """

    status: int | None = 200
    body: bytes = b"goods"
    headers: tuple[tuple[str, str], ...] = ()
    hang: bool = False
    drips: str | None = None


def asks(required: dict[str, Any] | str) -> Say:
    """A 402."""
    return Say(402, b"pay", (("PAYMENT-REQUIRED", encoded(required)),))


def encoded(told: dict[str, Any] | str) -> str:
    """As headers have it; text as it is."""
    return told if isinstance(told, str) else base64.b64encode(json.dumps(told).encode()).decode()


class Hostile:
    """Answers by `answer`, which is called with each request, and with how many there were."""

    def __init__(self, answer: Callable[[Heard, int], Say]) -> None:
        self.heard: list[Heard] = []
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while self.rfile.readline() != b"0\r\n":
                        pass
                    self.rfile.readline()
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = dict(self.headers.items())
                heard = Heard(self.path, self.headers.get("PAYMENT-SIGNATURE"), headers)
                said = answer(heard, len(outer.heard))
                outer.heard.append(heard)
                if said.hang:
                    outer._over.wait()
                if said.hang or said.status is None:
                    self.close_connection = True
                    return
                self.send_response(said.status)
                for name, value in said.headers:
                    self.send_header(name, value)
                if said.drips is not None:
                    self._drip(said.drips)
                    return
                self.send_header("Content-Length", str(len(said.body)))
                self.end_headers()
                self.wfile.write(said.body)

            def _drip(self, what: str) -> None:
                self.close_connection = True
                self.send_header("Content-Length", str(2**20))
                if what == "body":
                    self.end_headers()
                else:
                    self.flush_headers()
                    self.wfile.write(b"X-Long: ")
                with suppress(OSError):  # whoever waited is gone
                    while not outer._over.wait(0.02):
                        self.wfile.write(b"x")

            def log_message(self, *said: Any) -> None:
                """It would go to standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

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
        """Whoever still waits for an answer is cut off."""
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def signatures(self) -> list[str]:
        """Those that it was sent."""
        return [each.signature for each in self.heard if each.signature is not None]
