"""A receiver on this machine that shows what is delivered, and hands it on as it came."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

BODY_BYTES_MAX = 1_000_000
NOT_ALIKE = frozenset(("host", "connection", "content-length", "accept", "accept-encoding"))
"""Headers that belong to one connection; every other is handed on, signatures too."""

_PATIENCE_S = 14.0


class Listener:
    """Answers each delivery as the URL that it is handed on to does, or 200 without one.

    The body goes on byte for byte: what is written anew has no valid signature.
    """

    def __init__(
        self, port: int, forward_to: str | None, show: Callable[[bytes, int], None]
    ) -> None:
        """Raises `OSError` if the port cannot be bound, `ValueError` if `forward_to` is no URL."""
        http = httpx.Client(trust_env=False, timeout=_PATIENCE_S)
        target = None if forward_to is None else httpx.URL(forward_to)
        if target is not None and (target.scheme not in ("http", "https") or not target.host):
            raise ValueError(f"{forward_to!r} is no URL")
        showing = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if not length.isdigit() or int(length) > BODY_BYTES_MAX:
                    self.send_error(413)
                    return
                body = self.rfile.read(int(length))
                status = 200 if target is None else self._hand_on(target, body)
                with showing:
                    show(body, status)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _hand_on(self, to: httpx.URL, body: bytes) -> int:
                told = [(n, v) for n, v in self.headers.items() if n.lower() not in NOT_ALIKE]
                try:
                    return http.post(to, content=body, headers=told).status_code
                except httpx.HTTPError:
                    return 502

            def log_message(self, *_: object) -> None:
                """What is shown is shown by `show`."""

        self._http = http
        self._serving = False
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def serve(self) -> None:
        """Go on until `close`, or an interruption."""
        self._serving = True
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Stop listening."""
        if self._serving:  # else it would wait for that to begin, and end
            self._server.shutdown()
        self._server.server_close()
        self._http.close()
