"""A receiver of webhooks: a real HTTP server whose answers a test chooses."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import msgspec

Answer = int | tuple[int, dict[str, str]]


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """What the body says."""
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found

    @property
    def name(self) -> str:
        """The name of the event."""
        return str(self.event["event"])


class Receiver:
    """Answers 200, or whatever `answer` says to a request."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answer: Callable[[Received], Answer] = lambda _: 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    return  # who sent it was killed
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Received(self.path, headers, body)
                outer.received.append(request)
                answer = outer.answer(request)
                status, told = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for name, value in told.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hooks"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def names(self) -> list[str]:
        """The events that came, in their order."""
        return [each.name for each in self.received]

    def ids(self) -> list[str]:
        """Their ids."""
        return [each.event["id"] for each in self.received]
