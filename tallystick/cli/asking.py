"""The client of a command: who ends the command while it asks hears what may have been done."""

from typing import Any

import httpx

from tallystick.calls import Call
from tallystick.cli.output import fail
from tallystick.client import Client
from tallystick.errors import ApiError
from tallystick.paying.order import Order, Signed

_BEGUN = "send_request_headers.started"
_READING = ("GET", "HEAD")


class Asking(Client):
    """A `Client` that asks once. `signed` is what it has had signed last, if anything."""

    def __init__(self, url: str, *, api_key: str | None, session_token: str | None) -> None:
        self._line = _Line(trust_env=False)
        self.signed: Signed | None = None
        super().__init__(
            url, api_key=api_key, session_token=session_token, transport=self._line, retries=0
        )

    def buy(self, order: Order) -> Signed:
        """Have an order signed, and keep what was."""
        self.signed = super().buy(order)
        return self.signed

    def _heard(self, call: Call[Any]) -> httpx.Response:
        self._line.is_used = False
        try:
            return super()._heard(call)
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, and a signal that ends the command
            if self._line.is_used and call.method not in _READING and not call.missable:
                lost = ApiError(0, "no_answer", f"{self._http.base_url}: interrupted", {})
                lost.idempotency_key = call.key
                fail(lost)
            raise


class _Line(httpx.HTTPTransport):
    """Knows whether anything was sent: until then, nothing was done."""

    is_used = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["trace"] = self._follow
        return super().handle_request(request)

    def _follow(self, event: str, _of: Any) -> None:
        self.is_used = self.is_used or event.endswith(_BEGUN)
