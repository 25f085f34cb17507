"""What both clients ask a server for: each call as a value, with the type of its answer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlencode

from engine.policy.money import plain_decimals
from tallystick.errors import ApiError
from tallystick.exchange import TIMEOUT_S, authorization, given_or_new, part
from tallystick.fields import FilterFields, PaymentFilterFields, RevocationFields, SessionFields

if TYPE_CHECKING:  # the server's own types, which a client does without
    from tallystick.answers import (
        ApprovalAnswer,
        ApprovalsPage,
        CreatedSession,
        ManyRevoked,
        PaymentAnswer,
        PaymentsPage,
        SessionAnswer,
        SimulatedPayment,
    )

Answer = TypeVar("Answer")
SESSIONS = "/api/v1/ai/sessions"
PAYMENTS = "/api/v1/payments"
APPROVALS = "/api/v1/approvals"


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """A request. `key` is its idempotency key, `session_token` what pays beside an operator's key.

    `secret` is sent in place of the client's own. `once`: to ask again, when an answer is lost,
    could do it a second time. `missable`: who does not hear the answer has missed nothing else, as
    it only looks, or what it does the server does by itself in time.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    key: str | None = None
    session_token: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    kind: type = dict
    timeout_s: float = TIMEOUT_S
    once: bool = False
    missable: bool = False

    def content(self) -> bytes | None:
        """The body in JSON, its amounts in digits alone.

        Raises:
            ApiError: it holds a number that JSON does not have, such as NaN.
        """
        if self.body is None:
            return None
        try:
            separators = (",", ":")
            text = json.dumps(self.body, ensure_ascii=False, allow_nan=False, separators=separators)
        except ValueError as error:
            raise ApiError(0, "not_sendable", f"{self.method} {self.path}: {error}", {}) from error
        return plain_decimals(text).encode()

    def headers(self) -> dict[str, str]:
        """What is sent beside the client's own headers."""
        known = {
            "Content-Type": None if self.body is None else "application/json",
            "Idempotency-Key": self.key,
            "X-Session-Token": self.session_token,
        }
        sent = {name: value for name, value in known.items() if value is not None}
        return sent | authorization(self.secret)


def create_session(fields: SessionFields, key: str | None) -> "Call[CreatedSession]":
    """A new session."""
    return Call("POST", SESSIONS, fields, key=given_or_new(key))


def create_child(session_id: str, fields: SessionFields, key: str | None) -> "Call[CreatedSession]":
    """A new session beneath another one."""
    return Call("POST", of_session(session_id, "children"), fields, key=given_or_new(key))


def sessions(page: int, limit: int, filters: FilterFields) -> "Call[list[SessionAnswer]]":
    """A page of sessions."""
    query = query_of(page=page, limit=limit, **filters)
    return Call("GET", SESSIONS + query, kind=list)


def session(session_id: str) -> "Call[SessionAnswer]":
    """One session."""
    return Call("GET", of_session(session_id))


def change_session(
    session_id: str, how: str, body: Mapping[str, Any] | None = None
) -> "Call[SessionAnswer]":
    """`pause`, `resume`, `restrict`, `consent`: again changes nothing."""
    return Call("POST", of_session(session_id, how), body)


def revoke_session(session_id: str) -> Call[dict[str, Any]]:
    """The end of a session; again changes nothing."""
    return Call("POST", of_session(session_id, "revoke"))


def preview_revocation(filters: RevocationFields) -> "Call[ManyRevoked]":
    """Which sessions a revocation of many would end."""
    body = {"filter": filters, "preview": True}
    return Call("POST", f"{SESSIONS}/revoke-many", body, missable=True)


def revoke_many(filters: RevocationFields, selection: str) -> "Call[ManyRevoked]":
    """The end of exactly those; once they are ended, the selection names none that match."""
    body = {"filter": filters, "selection": selection}
    return Call("POST", f"{SESSIONS}/revoke-many", body, once=True)


def pay(
    amount: str | float,
    *,
    merchant: str | None,
    token: str,
    chain: str | None,
    hold: bool,
    description: str | None,
    metadata: Mapping[str, Any] | None,
    idempotency_key: str | None,
    session_token: str | None,
) -> "Call[PaymentAnswer]":
    """A payment, with a key of its own if none is given."""
    body = {
        "amount": amount,
        "merchant_id": merchant,
        "token": token,
        "chain": chain,
        "description": description,
        "metadata": metadata,
        "capture_method": "manual" if hold else "automatic",
    }
    key = given_or_new(idempotency_key)
    return Call("POST", PAYMENTS, body, key=key, session_token=session_token or "")


def execute(
    session_id: str,
    to: str,
    amount: str | float,
    *,
    token: str,
    memo: str | None,
    idempotency_key: str | None,
) -> "Call[PaymentAnswer]":
    """Tokens that the server sends."""
    body = {"to": to, "amount": amount, "token": token, "memo": memo}
    return Call("POST", of_session(session_id, "execute"), body, key=given_or_new(idempotency_key))


def capture(payment_id: str, amount: str | float | None) -> "Call[PaymentAnswer]":
    """A hold that is spent; the same again is a replay."""
    body = None if amount is None else {"amount": amount}
    return Call("POST", f"{PAYMENTS}/{part(payment_id)}/capture", body)


def void(payment_id: str) -> "Call[PaymentAnswer]":
    """A hold that is given back; again is a replay."""
    return Call("POST", f"{PAYMENTS}/{part(payment_id)}/void")


def payments(page: int, limit: int, filters: PaymentFilterFields) -> "Call[PaymentsPage]":
    """A page of payments."""
    return Call("GET", PAYMENTS + query_of(page=page, limit=limit, **filters))


def payment(payment_id: str) -> "Call[PaymentAnswer]":
    """One payment."""
    return Call("GET", f"{PAYMENTS}/{part(payment_id)}")


def simulate(session_id: str, body: Mapping[str, Any]) -> "Call[SimulatedPayment]":
    """A payment that is only tried."""
    return Call("POST", of_session(session_id, "simulate"), body, missable=True)


def approvals(
    session_id: str | None, state: str | None, page: int, limit: int
) -> "Call[ApprovalsPage]":
    """A page of approvals."""
    asked = query_of(page=page, limit=limit, session_id=session_id, state=state)
    return Call("GET", APPROVALS + asked)


def approval(approval_id: str) -> "Call[ApprovalAnswer]":
    """One approval."""
    return Call("GET", f"{APPROVALS}/{part(approval_id)}")


def decide_approval(
    approval_id: str, how: str, body: Mapping[str, Any] | None = None
) -> "Call[ApprovalAnswer]":
    """`grant` or `deny`; again with the same key changes nothing."""
    return Call("POST", f"{APPROVALS}/{part(approval_id)}/{how}", body)


def of_session(session_id: str, what: str | None = None) -> str:
    """The path of a session, or of something of it."""
    path = f"{SESSIONS}/{part(session_id)}"
    return path if what is None else f"{path}/{what}"


def query_of(**asked: str | int | Sequence[str] | None) -> str:
    """A query with what is not None, or nothing."""
    given = {name: value for name, value in asked.items() if value is not None}
    return f"?{urlencode(given, doseq=True)}" if given else ""
