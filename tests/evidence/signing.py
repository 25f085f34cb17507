"""A session whose key paid on chains, told by records made by hand, and what the chains show of it.

Everything else of the file is that of the vectors: it is registered in block 5, anchored in block
`ANCHORED`, and everything but what its key moved holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.audit.binding import payment_nonce
from engine.audit.chain import ChainView, Spend
from engine.audit.examination import Examination
from engine.audit.report import Check
from engine.audit.verify import examine
from engine.policy.decide import decide
from engine.policy.decision import PaymentRequest, Standing
from tests.audit import make_vectors as vectors
from tests.audit import vector_sessions as whose
from tests.evidence.story import Document, Snapshot, replaced

CONSENTED = whose.by_key(whose.grant())
KEY = whose.SESSION_KEY.public_key.to_address()
HOME = f"eip155:{whose.CHAIN_ID}"
USDC = whose.USDC.rpartition(":")[2]
SHOP, OTHER_SHOP = "0x" + "5a" * 20, "0x" + "5b" * 20
SHOP_NAME = "books.example"
ANCHORED = 9
LIFE_S = 300


@dataclass
class Payment:
    """A payment that was signed: its record's body and the chain's view of it."""

    id: str
    body: Document

    @property
    def nonce(self) -> bytes:
        return bytes.fromhex(self.body["nonce"])

    @property
    def amount(self) -> int:
        return int(self.body["amount"])

    @property
    def contract(self) -> str:
        return str(self.body["asset"].rpartition(":")[2])


class SignedRecords(vectors.Records):
    """The records of a session that signs payments, one a second."""

    def __init__(self) -> None:
        super().__init__(CONSENTED.grant)
        begun = vectors.told(CONSENTED)
        self.raws, self.hashes = begun.raws[:3], begun.hashes[:3]

    def decide(self, amount: int, counted: int | None = None, **changes: Any) -> tuple[str, bytes]:
        """Allow a payment of so many of a token's units, which count as so many micro-USD or as
        many as they are; returns its id and the hash of its record."""
        counted = amount if counted is None else counted
        terms = {
            "scheme": "exact",
            "network": HOME,
            "asset": whose.USDC,
            "amount": str(amount),
            "pay_to": SHOP,
            "resource": "https://books.example/1",
            "method": "GET",
            "body_sha256": None,
            "timeout_s": LIFE_S,
            **changes,
        }
        request = PaymentRequest(
            amount=counted,
            merchant=SHOP_NAME,
            token=terms["asset"],
            chain=terms["network"],
            token_priced=True,
        )
        usage, now_ms = self.usage, self.now_ms
        decision = decide(usage.policy, Standing.ACTIVE, usage.spending, request, now_ms)
        assert decision.allowed
        payment = f"pay_{whose.SESSION.removeprefix('sess_')}_{len(self.raws)}"
        asked = {
            "amount_micro_usd": counted,
            "merchant": SHOP_NAME,
            "token": request.token,
            "chain": request.chain,
            "permission": "pay",
            "token_priced": True,
            "terms": terms,
        }
        body = {
            "payment": payment,
            "request": asked,
            "idempotency_key": None,
            "request_digest": "ab" * 32,
            "grant_hash": self.grant.hash().hex(),
            "standing": "active",
            "chain_time_ms": (whose.START_S + 300) * 1000,
            "decision": decision.to_json(),
            "hold_expires_ms": now_ms + 900_000,
            "approval": None,
        }
        self.add("payment.decided", body)
        usage.hold(payment, now_ms, request)
        return payment, self.hashes[-1]

    def sign(self, amount: int, signed: Mapping[str, Any] | None = None, **terms: Any) -> Payment:
        """Allow a payment and sign it; `signed` are members of its record that are others."""
        payment, hashed = self.decide(amount, **terms)
        salt = hashed[::-1]
        body = {
            "payment": payment,
            "network": terms.get("network", HOME),
            "asset": terms.get("asset", whose.USDC),
            "from": KEY,
            "to": terms.get("pay_to", SHOP),
            "amount": str(amount),
            "valid_after_s": 0,
            "valid_before_s": self.now_ms // 1000 + LIFE_S,
            "nonce": payment_nonce(hashed, salt).hex(),
            "salt": salt.hex(),
            **(signed or {}),
        }
        self.add("payment.signed", body)
        return Payment(payment, body)

    def end(self, payment: Payment, how: str, settlement: Document | None = None) -> None:
        """Tell the end of a payment."""
        captured = payment.amount if how == "captured" else 0
        self.usage.end(payment.id, self.now_ms, captured)
        body = {
            "payment": payment.id,
            "held_micro_usd": payment.amount,
            "captured_micro_usd": captured,
        }
        told = {} if settlement is None else {"settlement": settlement}
        self.add(f"payment.{how}", body | told)

    def capture(self, payment: Payment, spends: Sequence[Spend], **changes: Any) -> None:
        """Tell that a payment settled as these events show, or otherwise."""
        used = spends[0]
        told = {
            "network": payment.body["network"],
            "asset": payment.body["asset"],
            "tx_hash": "0x" + (used.tx_hash or b"").hex(),
            "block_number": used.block_number,
            "block_hash": "0x" + "00" * 32,
            "log_index": used.log_index,
            "amount": payment.body["amount"],
            "to": payment.body["to"],
        }
        self.end(payment, "captured", told | changes)

    def accept(self, payment: Payment, transactions: Sequence[str]) -> None:
        """Tell that an operator counts a payment as spent, whatever these transactions did."""
        told = {
            "network": payment.body["network"],
            "accepted_by": "key_1",
            "reason": "the token took a fee",
            "contradiction": "99 was paid in place of 100",
            "transactions": list(transactions),
            "block_number": 8,
            "block_hash": "0x" + "00" * 32,
            "block_time_s": payment.body["valid_before_s"] + 1,
        }
        self.end(payment, "captured", told)


def settling(payment: Payment, block: int = 6, place: int = 0, **changes: Any) -> list[Spend]:
    """The two events of a payment that settles as it was signed, or otherwise."""
    moved = {"to": payment.body["to"], "amount": payment.amount, **changes}
    return events(payment.contract, payment.nonce, block=block, place=place, **moved)


def events(
    contract: str,
    nonce: bytes | None,
    to: str,
    amount: int,
    block: int = 6,
    place: int = 0,
    **changes: Any,
) -> list[Spend]:
    """What a token tells of a transfer from the key: with a nonce, one by authorization."""
    where = contract, bytes([block]) + place.to_bytes(31), block, 2 * place
    moved = Spend("transfer", *where, to=to, amount=amount)
    told = [replace(moved, **{"log_index": 2 * place + 1, **changes})]
    return told if nonce is None else [Spend("authorization", *where, nonce=nonce), *told]


@dataclass
class Told:
    """A file of these records, judged against a chain that shows these spends."""

    records: SignedRecords
    spends: Sequence[Spend] = ()
    networks: Mapping[str, ChainView] = field(default_factory=dict)
    times_s: Mapping[int, int] = field(default_factory=dict)
    anchored: int = ANCHORED

    @property
    def log(self) -> vectors.Log:
        log = vectors.Log(CONSENTED, self.records)
        log.anchorings = [log.anchoring(5, 7), log.anchoring(log.tree.size, self.anchored)]
        return log

    @property
    def chain(self) -> Snapshot:
        told = whose.snapshot(vectors.chain(self.log))
        return replaced(told, moved={KEY: tuple(self.spends)}, times_s=dict(self.times_s))

    def examine(self, chain: ChainView | None = None) -> Examination:
        file = vectors.sealed(self.log.document())
        return examine(file, chain or self.chain, registry=whose.REGISTRY, networks=self.networks)

    def check(self) -> Check:
        """The row of the check."""
        return row(self.examine())


def row(examination: Examination) -> Check:
    """The row of the check of spends."""
    return next(check for check in examination.report.checks if check.name == "spends")
