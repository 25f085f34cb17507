"""Who a worker asks for payments: an engine of its own, or a server over HTTP. Both tell the same.

Whatever is asked is on its way at once; its `result` waits for what is told of it.
"""

import json
import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from http.client import HTTPConnection, HTTPException
from typing import Any, Protocol

from engine.engine import Engine
from engine.errors import TallystickError, Unavailable
from engine.ledger.payment import Payment
from engine.policy.decision import PaymentRequest

USD = 1_000_000
MERCHANT = "books"
ANSWERS_WITHIN_S = 60
POLL_S = 0.01


@dataclass(frozen=True)
class Target:
    """A session with its token, and whether it pays dollars one by one, so that its limits can be
    hit exactly."""

    session: str
    workspace: str
    token: str
    by_dollars: bool


@dataclass(frozen=True)
class Question:
    """A payment to ask for."""

    key: str
    session: str
    amount: int
    hold: bool


class Answer(Protocol):
    """What is waited for."""

    def result(self) -> dict[str, Any]:
        """What a caller is told of the payment, as `told` does.

        Raises:
            Unavailable: nothing is known; whatever was asked for may have happened.
            TallystickError: it was refused, with this code.
        """


class Payer(Protocol):
    """Whom to ask. A session is named by its target."""

    def ask(self, target: Target, asked: Question) -> Answer:
        """A payment."""

    def capture(self, target: Target, payment: str, part: int) -> Answer:
        """So much of a hold, in micro-USD."""

    def void(self, target: Target, payment: str) -> Answer:
        """Nothing of a hold."""

    def close(self) -> None:
        """Ask no more."""


def told(payment: Payment) -> dict[str, Any]:
    """What a caller is told of a payment."""
    return {
        "id": payment.id,
        "state": payment.state,
        "amount": payment.amount,
        "captured": payment.captured,
        "decided_ms": payment.decided_ms,
        "expires_ms": payment.expires_ms,
        "closed_ms": payment.closed_ms,
        "allowed": payment.decision["allowed"],
        "code": payment.decision["code"],
        "rule": payment.decision["rule"],
        "replayed": payment.replayed,
    }


def submit(engine: Engine, asked: Question) -> "Future[Payment]":
    """Ask an engine for a payment, without waiting for the answer."""
    usdc = engine.token("USDC", None)
    assert usdc is not None
    return engine.ledger.authorise(
        asked.session,
        PaymentRequest(
            amount=asked.amount,
            merchant=MERCHANT,
            token=usdc.asset,
            chain=usdc.chain,
            token_priced=True,
        ),
        memo={"description": None, "metadata_json": "{}"},
        key=asked.key,
        capture=not asked.hold,
    )


@dataclass(frozen=True)
class _Told:
    future: "Future[Payment]"

    def result(self) -> dict[str, Any]:
        return told(self.future.result())


class OfEngine:
    """Asks an engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def ask(self, target: Target, asked: Question) -> Answer:
        return _Told(submit(self.engine, asked))

    def capture(self, target: Target, payment: str, part: int) -> Answer:
        return _Told(self.engine.ledger.capture(target.workspace, payment, part))

    def void(self, target: Target, payment: str) -> Answer:
        return _Told(self.engine.ledger.void(target.workspace, payment))

    def close(self) -> None:
        self.engine.close()


class OverHttp:
    """Asks a server on the loopback; each question has a connection of its own until it is heard.

    `port` says where the server is now, 0 while it is nowhere.
    """

    def __init__(self, port: Callable[[], int]) -> None:
        self._port_now = port
        self._port = 0
        self._free: list[HTTPConnection] = []

    def ask(self, target: Target, asked: Question) -> Answer:
        body = {
            "amount": f"{asked.amount // USD}.{asked.amount % USD:06}",
            "merchant_id": MERCHANT,
            "capture_method": "manual" if asked.hold else "automatic",
        }
        return self._post("/api/v1/payments", target, body, {"Idempotency-Key": asked.key})

    def capture(self, target: Target, payment: str, part: int) -> Answer:
        body = {"amount": f"{part // USD}.{part % USD:06}"}
        return self._post(f"/api/v1/payments/{payment}/capture", target, body, {})

    def void(self, target: Target, payment: str) -> Answer:
        return self._post(f"/api/v1/payments/{payment}/void", target, {}, {})

    def close(self) -> None:
        while self._free:
            self._free.pop().close()

    def _post(self, path: str, target: Target, body: object, headers: Mapping[str, str]) -> Answer:
        connection = self._connection()
        whose = {"X-Session-Token": target.token, "Content-Type": "application/json"}
        try:
            connection.request("POST", path, json.dumps(body).encode(), {**whose, **headers})
        except (OSError, HTTPException):
            connection.close()  # and its answer is that there is none
        return _Heard(connection, self._free)

    def _connection(self) -> HTTPConnection:
        parent = multiprocessing.parent_process()
        while not (port := self._port_now()) and (parent is None or parent.is_alive()):
            time.sleep(POLL_S)
        if port != self._port:
            self.close()
            self._port = port
        if self._free:
            return self._free.pop()
        return HTTPConnection("127.0.0.1", port, timeout=ANSWERS_WITHIN_S)


@dataclass(frozen=True)
class _Heard:
    connection: HTTPConnection
    free: list[HTTPConnection]

    def result(self) -> dict[str, Any]:
        try:
            response = self.connection.getresponse()
            content = response.read()
        except (OSError, HTTPException) as lost:
            self.connection.close()
            raise Unavailable(f"no answer: {lost!r}") from lost
        self.free.append(self.connection)
        answer = json.loads(content, parse_float=Decimal)
        if "decision" in answer:
            return _of_json(answer, response.headers.get("Idempotent-Replayed") == "true")
        if response.status == 503:
            raise Unavailable(answer["message"], code=answer["code"])
        raise TallystickError(answer["message"], code=answer["code"])


def _of_json(answer: Mapping[str, Any], replayed: bool) -> dict[str, Any]:
    """As `told`, from what REST says of a payment."""
    decision = answer["decision"]
    return {
        "id": answer["id"],
        "state": answer["state"],
        "amount": _micro(answer["amount_usd"]),
        "captured": _micro(answer["captured_usd"]),
        "decided_ms": _milliseconds(answer["created_at"]),
        "expires_ms": _milliseconds(answer["expires_at"]),
        "closed_ms": _milliseconds(answer["closed_at"]),
        "allowed": decision["allowed"],
        "code": decision["code"],
        "rule": decision["rule"],
        "replayed": replayed,
    }


def _micro(dollars: Decimal | int) -> int:
    micro = Decimal(dollars) * USD
    assert micro == int(micro), f"{dollars} are not whole micro-USD"
    return int(micro)


def _milliseconds(text: str | None) -> int | None:
    return None if text is None else round(datetime.fromisoformat(text).timestamp() * 1000)
