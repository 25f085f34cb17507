"""A server that answers payment intents and analytics in the shapes of the agent-session API."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

ROOT = "/api/v1/payment-intents"
FIGURES = {
    "total_payments": 1,
    "total_volume_usd": 12.5,
    "average_payment_usd": 12.5,
    "success_rate": 0.5,
    "active_sessions": 2,
    "active_delegates": 0,
    "ppp_savings_usd": 0,
    "payments_by_token": {"SOL": 0, "USDC": 1, "USDT": 0},
    "payments_by_day": [
        {"date": "2026-01-30", "count": 0, "volume_usd": 0},
        {"date": "2026-01-31", "count": 1, "volume_usd": 12.5},
    ],
}


class Asked(NamedTuple):
    """A request as it came."""

    path: str
    body: Any
    key: str | None


class IntentsStub:
    """One intent at a time, on a real socket."""

    key = "zfi_test_stub"

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.intents: dict[str, dict[str, Any]] = {}
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(*stub.read(self.path))

            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.loads(sent) if sent else None
                stub.asked.append(Asked(self.path, body, self.headers["Idempotency-Key"]))
                self._answer(*stub.change(self.path.removeprefix(ROOT).split("/"), body))

            def _answer(self, status: int, body: Any) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def read(self, path: str) -> tuple[int, Any]:
        """The answer to a GET."""
        if path == "/api/v1/analytics/agents":
            return 200, FIGURES
        self.asked.append(Asked(path, None, None))
        if path.startswith(ROOT + "?"):
            return 200, [*self.intents.values()]
        return 200, self.intents[path.rpartition("/")[2]]

    def change(self, words: list[str], body: Any) -> tuple[int, Any]:
        """The answer to a POST."""
        if words == [""]:
            made = {
                "id": "pi_1",
                "client_secret": "pi_1_secret",
                "amount": float(body["amount"]),
                "currency": body["currency"],
                "description": body.get("description"),
                "status": "requires_payment",
                "capture_method": body["capture_method"],
                "agent_id": body.get("agent_id"),
                "created_at": "2026-01-31T09:00:00.000Z",
                "expires_at": "2026-01-31T09:01:00.000Z",
            }
            self.intents["pi_1"] = made
            return 201, made
        intent, how = self.intents[words[1]], words[2]
        if how == "confirm":
            if body["client_secret"] != intent["client_secret"]:
                return 402, {"code": "payment_declined", "message": "not its secret"}
            intent |= {"status": "processing", "payment_id": "pay_1"}
        elif how == "capture":
            intent["status"] = "succeeded"
        else:
            return 409, {"code": "conflict", "message": f"it is {intent['status']}"}
        return 200, intent
