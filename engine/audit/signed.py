"""The payments that a file's records say were signed, and what they say came of each.

Nothing but what binds a payment on the chain to its record is read here. Whether the records follow
from each other is for the replay; a payment that its own records do not bear out is a fault, and
explains nothing on the chain.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.audit.binding import payment_nonce
from engine.audit.record import Record, read_hex
from engine.audit.report import wrong
from engine.audit.signing import is_accepted

_AMOUNT = re.compile("[1-9][0-9]{0,77}")
_ENDS = ("payment.captured", "payment.voided", "payment.expired")
PAYMENT_KINDS = frozenset(("payment.decided", "payment.signed", *_ENDS))
"""The kinds of records that tell of signed payments, among others."""


@dataclass(frozen=True, slots=True)
class Told:
    """A settlement as a record tells it; `log_index` is the event's place in its block."""

    network: str
    contract: str
    tx_hash: bytes
    block_number: int
    log_index: int
    to: str
    amount: int


@dataclass(frozen=True, slots=True)
class SignedPayment:
    """The one payment on a chain that the record of a decision allows.

    `network` is a CAIP-2 id, addresses are in lower case, `amount` is in the token's smallest unit.
    It can settle in a block whose time is before `valid_before_s`.
    """

    payment: str
    network: str
    contract: str
    to: str
    amount: int
    counted_micro_usd: int
    """What it counts as, against the limits."""
    decided_ms: int
    """By the operator's clock."""
    valid_before_s: int
    nonce: bytes
    ended: str | None
    """What the records say came of it: `captured`, `voided`, `expired`, or `accepted`: an operator
    counts it as spent whatever the chain shows; None while it is open."""
    told: Told | None
    """Where, if it was captured."""
    accepted: frozenset[bytes] = frozenset()
    """The transactions that the operator accepted."""


@dataclass(frozen=True, slots=True)
class SignedPayments:
    """What the records of a file tell of payments on chains."""

    payments: Sequence[SignedPayment] = ()
    faults: Sequence[str] = ()


class _Terms(msgspec.Struct):
    network: str
    asset: str
    amount: str
    pay_to: str


class _Request(msgspec.Struct):
    amount_micro_usd: int
    terms: _Terms | None = None


class _Decision(msgspec.Struct):
    allowed: bool


class _Decided(msgspec.Struct):
    payment: str
    request: _Request
    decision: _Decision


@dataclass(frozen=True, slots=True)
class _Made:
    """A decision, and what it is known by: the hash and the time of its record."""

    decided: _Decided
    hash: bytes
    time_ms: int


class _Signed(msgspec.Struct):
    payment: str
    network: str
    asset: str
    payer: str = msgspec.field(name="from")
    to: str
    amount: str
    valid_before_s: int
    nonce: str
    salt: str


class _Settlement(msgspec.Struct):
    network: str
    asset: str
    tx_hash: str
    block_number: int
    log_index: int
    amount: str
    to: str


class _Ended(msgspec.Struct):
    payment: str
    settlement: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _End:
    """How the records end a payment."""

    state: str
    told: Told | None = None
    accepted: frozenset[bytes] = frozenset()


_ELSEWHERE = {kind: _End(kind.removeprefix("payment.")) for kind in _ENDS}
"""What an end leaves that tells of no transaction."""


class SignedReader:
    """Reads what records tell of signed payments, fed in their order."""

    def __init__(self) -> None:
        self._made: dict[str, _Made] = {}
        self._signed: list[_Signed] = []
        self._ended: dict[str, _End] = {}
        self._faults: list[str] = []

    def feed(self, record: Record) -> None:
        """Take in a record of one of `PAYMENT_KINDS`."""
        body = record.body
        try:
            if record.kind == "payment.decided":
                if "terms" in body["request"]:
                    decided = msgspec.convert(body, type=_Decided)
                    self._made[decided.payment] = _Made(decided, record.hash, record.time_ms)
            elif record.kind == "payment.signed":
                self._signed.append(msgspec.convert(body, type=_Signed))
            elif "settlement" not in body and type(body["payment"]) is str:
                # Most are not on any chain.
                self._ended[body["payment"]] = _ELSEWHERE[record.kind]
            else:
                ended = msgspec.convert(body, type=_Ended)
                self._ended[ended.payment] = _end(record.kind, ended.settlement)
        except (KeyError, TypeError, ValueError) as error:  # msgspec's errors are such, too
            self._faults.append(f"record {record.seq}, of a payment: {wrong(error)}")

    def payments(self, key: str) -> SignedPayments:
        """All that were signed by the session's `key`, an address in lower case."""
        faults = list(self._faults)
        payments = list(_bound(self._signed, self._made, self._ended, key, faults))
        return SignedPayments(payments, faults)


def _bound(
    signed: Sequence[_Signed],
    made: Mapping[str, _Made],
    ended: Mapping[str, _End],
    key: str,
    faults: list[str],
) -> Iterator[SignedPayment]:
    """The payments whose own records bear them out; what is wrong with the others goes to `faults`.

    A nonce is a hash of a payment's own record, so no two of these have the same.
    """
    seen: set[str] = set()
    for each in signed:
        if each.payment in seen or each.payment not in made:
            faults.append(f"{each.payment}: it was signed twice, or never decided")
            continue
        seen.add(each.payment)
        try:
            yield _payment(each, made[each.payment], ended.get(each.payment), key)
        except ValueError as error:
            faults.append(f"{each.payment}: {error}")


def _payment(signed: _Signed, made: _Made, end: _End | None, key: str) -> SignedPayment:
    decided = made.decided
    terms = _Terms(signed.network, signed.asset, signed.amount, signed.to)
    if not decided.decision.allowed or (signed.payer, terms) != (key, decided.request.terms):
        raise ValueError("it was signed otherwise than it was decided")
    nonce = _bytes(signed.nonce)
    if payment_nonce(made.hash, _bytes(signed.salt)) != nonce:
        raise ValueError("its nonce is not that of its record")
    return SignedPayment(
        payment=signed.payment,
        network=signed.network,
        contract=_contract(signed.network, signed.asset),
        to=signed.to,
        amount=_amount(signed.amount),
        counted_micro_usd=decided.request.amount_micro_usd,
        decided_ms=made.time_ms,
        valid_before_s=signed.valid_before_s,
        nonce=nonce,
        ended=None if end is None else end.state,
        told=None if end is None else end.told,
        accepted=frozenset() if end is None else end.accepted,
    )


def _end(kind: str, settlement: dict[str, Any] | None) -> _End:
    """What a record makes of a payment; how one expired tells of no transaction."""
    state = kind.rpartition(".")[2]
    if state != "captured" or settlement is None:
        return _End(state)
    if is_accepted(settlement):
        named = msgspec.convert(settlement["transactions"], type=list[str])
        return _End("accepted", None, frozenset(_bytes(each.removeprefix("0x")) for each in named))
    told = msgspec.convert(settlement, type=_Settlement)
    found = Told(
        network=told.network,
        contract=_contract(told.network, told.asset),
        tx_hash=_bytes(told.tx_hash.removeprefix("0x")),
        block_number=told.block_number,
        log_index=told.log_index,
        to=told.to,
        amount=_amount(told.amount),
    )
    return _End(state, found)


def _contract(network: str, asset: str) -> str:
    """The token contract of an asset (CAIP-19) of a network (CAIP-2)."""
    prefix, _, contract = asset.rpartition(":")
    if prefix != f"{network}/erc20":
        raise ValueError(f"{asset} is no token of {network}")
    return contract


def _amount(text: str) -> int:
    if not _AMOUNT.fullmatch(text):
        raise ValueError("an amount is a decimal number of the token's smallest units, as text")
    return int(text)


def _bytes(text: str) -> bytes:
    """32 bytes in lower-case hexadecimal."""
    return read_hex(text, 32)
