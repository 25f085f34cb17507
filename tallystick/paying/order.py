"""What is bought and what came of it, without any input or output.

What has to last from one hop of a redirected request to the next is kept in a dictionary that the
HTTP library hands on with the request: its `marks`.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

from engine.payments.offers import OFFERS_MAX
from tallystick.errors import (
    ApiError,
    NotPayable,
    PaymentDenied,
    PaymentNotAccepted,
    PaymentOutcomeUnknown,
)

PAYMENT_REQUIRED = "PAYMENT-REQUIRED"
PAYMENT_SIGNATURE = "PAYMENT-SIGNATURE"
PAYMENT_RESPONSE = "PAYMENT-RESPONSE"
STATUS = 402
IDEMPOTENCY_KEY = "Idempotency-Key"

ASKED = "tallystick.asked"
"""The mark with what was asked for, an `Asked`."""
KEY = "tallystick.key"
"""The mark with the idempotency key of a call."""
MAX_PRICE = "tallystick.max_price"
"""The mark with what a call may cost."""
PAID = "tallystick.paid"
"""Where a response has its `Paid`."""

_RECEIPT_LENGTH_MAX = 16_384
_TX_HASH = re.compile(r"0x[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Order:
    """What the server is asked to sign for.

    `required` is the value of PAYMENT-REQUIRED, `body_sha256` the hash of the request's body in
    hexadecimal, `max_price` dollars as decimal text.
    """

    required: str
    resource: str
    method: str
    body_sha256: str | None
    key: str
    max_price: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The body of `POST /api/v1/ai/sessions/{session_id}/x402`."""
        sent = {
            "payment_required": self.required,
            "resource": self.resource,
            "method": self.method,
            "body_sha256": self.body_sha256,
        }
        return sent if self.max_price is None else {**sent, "max_amount": self.max_price}


@dataclass(frozen=True, slots=True)
class Signed:
    """What the server signed. `signature` is the value of PAYMENT-SIGNATURE: worth money."""

    payment: Mapping[str, Any] = field(repr=False)
    order: Order = field(repr=False)
    signature: str = field(repr=False)

    @property
    def id(self) -> str:
        """The payment's id at the server."""
        return str(self.payment["id"])

    @property
    def terms(self) -> Mapping[str, Any]:
        """What was agreed to."""
        found: Mapping[str, Any] = self.payment["terms"]
        return found


@dataclass(slots=True)
class Asked:
    """What was asked for in the first place, and what was signed for it since."""

    first: "ref[Any]"
    url: str
    signed: Signed | None = None


@dataclass(frozen=True, slots=True)
class Paid:
    """What was paid for an answer.

    `amount_usd` is dollars, `amount` the same in the token's smallest unit; `network` is a CAIP-2
    id, `asset` a CAIP-19 id. `tx_hash` is the transaction that the resource named, if any;
    `settlement` is what the Tallystick server knows of it, None if it could not be told.
    """

    payment_id: str
    idempotency_key: str
    resource: str
    amount_usd: int | float
    amount: str
    network: str
    asset: str
    pay_to: str
    tx_hash: str | None
    settlement: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What PAYMENT-RESPONSE says: x402's SettlementResponse, as far as it is needed."""

    success: bool
    tx_hash: str | None


def asked_first(marks: MutableMapping[str, Any], request: Any, url: str) -> Asked:
    """What was asked for: this request, unless a redirect led to it from another one."""
    asked = marks.get(ASKED)
    if not isinstance(asked, Asked) or asked.first() is request:  # which may be sent again
        asked = marks[ASKED] = Asked(ref(request), url)
    return asked


def read_order(
    asked: Asked,
    url: str,
    method: str,
    body: bytes | None,
    required: str,
    key: str,
    max_price: str | None,
) -> Order:
    """What to have signed for the answer to a request, whose body is None if it was a stream.

    Raises:
        NotPayable: nothing may be paid for this answer.
        PaymentOutcomeUnknown: a payment was made already, which led here.
    """
    if asked.signed is not None:
        raise unknown(asked.signed, "it led on to a URL that asks for a payment")
    if asked.url != url:
        raise NotPayable(
            "redirected",
            "the payment is asked for by another URL than was asked for: ask that one",
        )
    if body is None:
        raise NotPayable(
            "body_not_replayable",
            "the request's body is a stream, which cannot be sent again with a payment: "
            "send it as bytes",
        )
    return Order(
        required=_few_offers(required),
        resource=url,
        method=method,
        body_sha256=hashlib.sha256(body).hexdigest() if body else None,
        key=key,
        max_price=max_price,
    )


def read_signed(order: Order, answer: Mapping[str, Any]) -> Signed:
    """The server's answer to an order.

    Raises:
        ApiError: it is none.
    """
    signature, terms = answer.get("payment_signature"), answer.get("terms")
    if (
        not (isinstance(signature, str) and signature.isascii() and signature.isprintable())
        or not isinstance(terms, Mapping)
        or not {"id", "amount_usd"} <= answer.keys()
        or not {"amount", "network", "asset", "pay_to"} <= terms.keys()
    ):
        raise ApiError(200, "http_error", "the answer is not a Tallystick's", {})
    return Signed(answer, order, signature)


def refused(order: Order, error: ApiError) -> ApiError:
    """A refusal to sign, as the caller hears it."""
    if error.status == STATUS:
        error = PaymentDenied(error.status, error.code, error.message, error.body)
    error.idempotency_key = order.key
    return error


def read_receipt(value: str | None) -> Receipt | None:
    """What a PAYMENT-RESPONSE says; None if there is none that can be read."""
    told = None if value is None or len(value) > _RECEIPT_LENGTH_MAX else _decoded(value)
    if told is None:
        return None
    named = told.get("transaction")
    is_hash = isinstance(named, str) and _TX_HASH.fullmatch(named) is not None
    return Receipt(told.get("success") is True, str(named) if is_hash else None)


def report_of(receipt: Receipt | None) -> dict[str, Any]:
    """The body of `POST /api/v1/ai/payments/{payment_id}/settlement`."""
    if receipt is None or receipt.tx_hash is None:
        return {"unknown": True}
    return {"payment_response": {"success": receipt.success, "transaction": receipt.tx_hash}}


def judged(
    signed: Signed, status: int, required: str | None, receipt: Receipt | None, state: str | None
) -> Paid:
    """What was paid, by the answer to the request that had the signature.

    Raises:
        PaymentNotAccepted: it asks for a payment again.
        PaymentOutcomeUnknown: nobody can say whether the signature was used.
    """
    tx_hash = None if receipt is None else receipt.tx_hash
    if status == STATUS:
        if tx_hash is not None:
            raise unknown(signed, "it asks for a payment again, and names a transaction", tx_hash)
        raise _not_accepted(signed, required)
    if status >= 500 and not (receipt is not None and receipt.success):
        raise unknown(signed, f"it answered {status} to the payment", tx_hash)
    terms = signed.terms
    return Paid(
        payment_id=signed.id,
        idempotency_key=signed.order.key,
        resource=signed.order.resource,
        amount_usd=signed.payment["amount_usd"],
        amount=terms["amount"],
        network=terms["network"],
        asset=terms["asset"],
        pay_to=terms["pay_to"],
        tx_hash=tx_hash,
        settlement=state,
    )


def unknown(signed: Signed, why: str, tx_hash: str | None = None) -> PaymentOutcomeUnknown:
    """Nobody can say whether a signature was used."""
    error = PaymentOutcomeUnknown(
        "payment_outcome_unknown",
        f"{signed.order.resource}: {why}; payment {signed.id} may have been made",
        payment_id=signed.id,
        idempotency_key=signed.order.key,
    )
    error.tx_hash = tx_hash
    return error


def _not_accepted(signed: Signed, required: str | None) -> PaymentNotAccepted:
    now = _decoded(required) if required is not None else None
    offers = (now or {}).get("accepts")
    payload = signed.payment.get("payment")
    accepted = payload.get("accepted") if isinstance(payload, Mapping) else None
    changed = isinstance(offers, list) and accepted not in offers
    why = "asks for another payment" if changed else "asks for the payment again"
    said = (now or {}).get("error")
    told = f" ({said[:100]!a})" if isinstance(said, str) and said else ""
    return PaymentNotAccepted(
        "terms_changed" if changed else "payment_not_accepted",
        f"{signed.order.resource}: it has payment {signed.id} and {why}{told}; "
        "no second one is signed",
        payment_id=signed.id,
        idempotency_key=signed.order.key,
    )


def _few_offers(required: str) -> str:
    """PAYMENT-REQUIRED as it was sent; without most offers if there are more than are looked at."""
    told = _decoded(required)
    if told is None:
        raise NotPayable("payment_required_unreadable", "PAYMENT-REQUIRED is no object in base64")
    offers = told.get("accepts")
    if not isinstance(offers, list) or len(offers) <= OFFERS_MAX + 1:
        return required
    # One more than is looked at, so that the server tells of it.
    fewer = json.dumps({**told, "accepts": offers[: OFFERS_MAX + 1]})
    return base64.b64encode(fewer.encode()).decode()


def _decoded(value: str) -> dict[str, Any] | None:
    try:
        told = json.loads(base64.b64decode(value, validate=True))
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None
