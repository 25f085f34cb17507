"""What was signed of payments, as one session's records tell it, and how the chain ended it.

Only a payment that is held is signed, once, and exactly as its decision says: its terms are in the
request that was decided, and its nonce is bound to that record. From then on nothing but the chain
ends its hold, or an operator who accepts what the chain shows against it. That the chain did is for
who can ask the chain; here it must only fit what was signed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.audit.binding import payment_nonce
from engine.audit.record import Record, integer, read_hex
from engine.audit.report import shown

TIMEOUT_MAX_S = 3_600
"""The longest life of a signature."""
ACCEPTED_TRANSACTIONS_MAX = 16
"""So many transactions are named of a payment that the chain contradicts."""
REASONS_MAX = 32
"""So many offers are told of that cannot be paid."""

_AMOUNT = re.compile(r"[1-9][0-9]{0,77}")
_ADDRESS = re.compile(r"0x[0-9a-f]{40}")
_HEX_32 = re.compile(r"0x[0-9a-f]{64}")
_TERMS = frozenset(("scheme", "network", "asset", "amount", "pay_to", "method", "timeout_s"))
_WITHHELD = frozenset(("resource", "body_sha256"))
_SIGNED = frozenset(
    (
        *("payment", "network", "asset", "from", "to", "amount"),
        *("valid_after_s", "valid_before_s", "nonce", "salt"),
    )
)
_CAPTURED = frozenset(
    ("network", "asset", "tx_hash", "block_number", "block_hash", "log_index", "amount", "to")
)
_EXPIRED = frozenset(("network", "block_number", "block_hash", "block_time_s"))
_ACCEPTED = _EXPIRED | {"accepted_by", "reason", "contradiction", "transactions"}


@dataclass(frozen=True, slots=True)
class _Agreed:
    """A payment that is held and can be signed: its terms, and the hash of the decision."""

    terms: Mapping[str, Any]
    decided: bytes


class Signatures:
    """What is signed in one session; `payer` is the address of its key.

    Every method raises `KeyError`, `TypeError` or `ValueError` for what cannot have happened.
    """

    def __init__(self, payer: str) -> None:
        self._payer = payer
        self._agreed: dict[str, _Agreed] = {}
        self.open: dict[str, Mapping[str, Any]] = {}
        """The bodies of the records of what is signed and not settled, by payment."""

    def decided(self, record: Record) -> None:
        """A payment was allowed; what it does not say cannot be signed."""
        terms = record.body["request"].get("terms")
        if terms is not None:
            self._agreed[record.body["payment"]] = _Agreed(terms, record.hash)

    def signed(self, record: Record) -> None:
        """It was signed."""
        body = record.body
        agreed = self._agreed.get(body["payment"])
        if body.keys() != _SIGNED or agreed is None:
            raise ValueError("nothing of that payment is to be signed")
        terms = agreed.terms
        if body["from"] != self._payer:
            raise ValueError("it is signed with another key than the session's")
        told = body["network"], body["asset"], body["to"], body["amount"]
        if told != (terms["network"], terms["asset"], terms["pay_to"], terms["amount"]):
            raise ValueError("it is not what was allowed")
        nonce, salt = read_hex(body["nonce"], 32), read_hex(body["salt"], 32)
        if nonce != payment_nonce(agreed.decided, salt):
            raise ValueError("its nonce is not bound to its decision")
        after_s, before_s = integer(body["valid_after_s"]), integer(body["valid_before_s"])
        if not 0 <= after_s * 1000 <= record.time_ms < before_s * 1000:
            raise ValueError("it is not valid when it is signed")
        if before_s * 1000 - record.time_ms > (terms["timeout_s"] + 1) * 1000:
            raise ValueError("it is valid for longer than was agreed")
        self.open[body["payment"]] = body

    def ended(self, record: Record) -> None:
        """A hold ended: one that was signed by the chain alone, any other without it."""
        body = record.body
        self._agreed.pop(body["payment"], None)
        signed = self.open.pop(body["payment"], None)
        settlement = body.get("settlement")
        if signed is None:
            if "settlement" in body:
                raise ValueError("what was not signed cannot be settled")
            return
        whole = body["captured_micro_usd"] == body["held_micro_usd"]
        if record.kind == "payment.captured" and not whole:
            raise ValueError("a signed payment is captured as a whole")
        if record.kind == "payment.captured" and settlement is not None:
            if is_accepted(settlement):
                _check_accepted(settlement, signed)
                return
            _check_settlement(settlement, _CAPTURED, signed)
            for name in ("asset", "to", "amount"):
                if settlement[name] != signed[name]:
                    raise ValueError(f"it was settled with another {name} than was signed")
            _hash(settlement["tx_hash"])
            integer(settlement["log_index"])
        elif record.kind == "payment.expired" and settlement is not None:
            _check_settlement(settlement, _EXPIRED, signed)
            _check_over(settlement, signed)
        else:
            raise ValueError("only the chain ends a signed payment, or who accepts what it shows")


def is_accepted(settlement: Mapping[str, Any]) -> bool:
    """Whether an operator ended a payment, and not the chain."""
    return "accepted_by" in settlement


def _check_accepted(settlement: Mapping[str, Any], signed: Mapping[str, Any]) -> None:
    """An operator accepts what the chain shows, and only once it can show nothing else."""
    _check_settlement(settlement, _ACCEPTED, signed)
    _check_over(settlement, signed)
    for name in ("accepted_by", "reason", "contradiction"):
        if not isinstance(settlement[name], str) or not settlement[name]:
            raise ValueError(f"it is accepted without its {name}")
    transactions = settlement["transactions"]
    if not isinstance(transactions, list) or len(transactions) > ACCEPTED_TRANSACTIONS_MAX:
        raise ValueError("the transactions that are accepted are no list, or a long one")
    for each in transactions:
        _hash(each)


def _check_over(settlement: Mapping[str, Any], signed: Mapping[str, Any]) -> None:
    if integer(settlement["block_time_s"]) < signed["valid_before_s"]:
        raise ValueError("its signature was still valid on the chain")


def _check_settlement(
    settlement: Mapping[str, Any], fields: frozenset[str], signed: Mapping[str, Any]
) -> None:
    if settlement.keys() != fields or settlement["network"] != signed["network"]:
        raise ValueError("its settlement is not of its form or its network")
    integer(settlement["block_number"])
    _hash(settlement["block_hash"])


def read_terms(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The terms in what was decided on, with or without what is withheld; None if there are none.

    Raises:
        KeyError, TypeError, ValueError: they are none, or not of this request.
    """
    if "terms" not in request:
        return None
    terms: Mapping[str, Any] = request["terms"]
    if terms.keys() - _WITHHELD != _TERMS:
        raise ValueError("the terms are not of their form")
    texts = [terms[name] for name in sorted(_TERMS - {"timeout_s"})]
    if not all(isinstance(text, str) for text in texts) or terms["scheme"] != "exact":
        raise ValueError("the terms are not of their form")
    if not _AMOUNT.fullmatch(terms["amount"]) or not _ADDRESS.fullmatch(terms["pay_to"]):
        raise ValueError("the amount or the payee of the terms is none")
    if not 0 < integer(terms["timeout_s"]) <= TIMEOUT_MAX_S:
        raise ValueError("the timeout of the terms is not one that a signature can have")
    if (terms["network"], terms["asset"]) != (request["chain"], request["token"]):
        raise ValueError("the terms are of another token than the request")
    return terms


def check_refused(body: Mapping[str, Any], withheld: bool) -> None:
    """A record of a 402 of which no offer could be paid.

    Raises:
        KeyError, TypeError, ValueError: it is not of the form of one.
    """
    if not isinstance(body["method"], str) or integer(body["offers"]) < 0:
        raise ValueError("it does not tell what was asked")
    if not withheld and not (
        isinstance(body["reasons"], list)
        and len(body["reasons"]) <= REASONS_MAX
        and all(each.keys() == {"position", "reason"} for each in body["reasons"])
    ):
        raise ValueError("it does not tell why nothing could be paid")


def _hash(value: Any) -> None:
    if not isinstance(value, str) or not _HEX_32.fullmatch(value):
        raise ValueError(f"{shown(value)} is no hash")
