"""Whether everything that a session's key moved on a chain is bound to a record that allows it.

A payment by EIP-3009 shows on the chain as `AuthorizationUsed(key, nonce)` and, of the same token
in the same transaction, `Transfer(key, payee, amount)`. The nonce is a hash of the record that
allowed it (`engine.audit.binding`). So each such pair must be the settlement of exactly one signed
payment, with its payee and its amount, and nothing else may have left the key's address. Whatever
does not fit is one incident.

The native coin needs no balance: only a transaction of the account itself moves it, or code that
the account delegated to (EIP-7702); either counts up the account's nonce, which is asked for.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from engine.audit.chain import Spend
from engine.audit.report import Verdict, counted
from engine.audit.signed import SignedPayment


@dataclass(frozen=True, slots=True)
class Incident:
    """Something on a chain that no record allows; the fields are those of `Spend`.

    `kind` is one of

    - `orphan`: an authorization was used whose nonce no record explains: a record was left out, or
      the key signed elsewhere
    - `reused`: the nonce of a payment was used once more, or by another contract
    - `other_amount`, `other_payee`, `no_transfer`: the nonce of a payment was used, and the money
      did not go where the record says
    - `transfer`: tokens left the address without an authorization
    - `transactions`: the account itself sent transactions, beside those of the transfers told

    `payment` is the one whose nonce it is. `verdict` is what it makes of the file.
    """

    kind: str
    network: str
    verdict: Verdict
    spend: Spend
    payment: str | None = None

    @property
    def what(self) -> str:
        """The incident in words."""
        spend = self.spend
        if self.kind == "transactions":
            return f"{counted(spend.count, 'transaction')} sent by the key itself"
        said = "a transfer of" if self.kind == "transfer" else "a payment authorization of"
        said += f" {spend.contract} in transaction 0x{(spend.tx_hash or b'').hex()}"
        if self.payment is not None:
            return f"{said}: {_MISFITS[self.kind]} {self.payment}"
        return said if spend.nonce is None else f"{said} with nonce 0x{spend.nonce.hex()}"


_MISFITS = {
    "reused": "it uses the nonce again of",
    "other_amount": "it is of another amount than",
    "other_payee": "it is to another payee than",
    "no_transfer": "it moved nothing for",
}


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a chain shows of a signed payment.

    `state` is `settled`; `open`: it can still settle; `lapsed`: it can not any more; `differs`: its
    nonce was used otherwise than its record says; `accepted`: so it was, or it is not known, and a
    record has it as spent by an operator's word; `missing`: the records have it as captured and the
    chain does not; `not_checked`: nobody asked that chain. The block, the transaction and the
    place of its `AuthorizationUsed` in the block are told where it is settled.
    """

    payment: SignedPayment
    state: str
    tx_hash: bytes | None = None
    block_number: int | None = None
    log_index: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """The blocks of one network for which a file answers, both included.

    What is before is older than the session; of what is after, the file need not know yet.
    """

    first: int
    last: int


class Bindings:
    """The spends of a key on one network, each held against the payments signed for it.

    `named` are the token contracts that the grant or an allowed payment names. Anybody's contract
    can say what it likes of the key, so what others say accuses nobody, unless the key itself
    called them; it could be a token of great value, so it is told all the same.
    """

    def __init__(
        self, network: str, spends: Iterable[Spend], payments: Iterable[SignedPayment]
    ) -> None:
        self.network = network
        self.settled: dict[str, Spend] = {}
        """The used authorization of each payment that settled as its record says."""
        self.strays: list[tuple[str, Spend, str | None]] = []
        """Kind, spend and payment of everything else."""
        self.sent = 0
        """How many transactions the account itself sent."""
        self._differing: set[str] = set()
        payments = list(payments)
        self._accepted = {
            (tx_hash, payment.contract, payment.nonce): payment.payment
            for payment in payments
            for tx_hash in payment.accepted
        }
        self._by_word: dict[tuple[bytes | None, str | None], set[str]] = defaultdict(set)
        """The accepted payments whose nonce was used in a transaction that their record names."""
        self._payments = {payment.nonce: payment for payment in payments}
        groups: dict[tuple[bytes | None, str | None], list[Spend]] = defaultdict(list)
        for spend in spends:
            if spend.kind == "transactions":
                self.sent += spend.count
            else:
                groups[spend.tx_hash, spend.contract].append(spend)
        for group in groups.values():
            self._bind(group)

    def _bind(self, group: Sequence[Spend]) -> None:
        """What one token tells of one transaction, which can settle several payments."""
        moved: dict[tuple[str | None, int | None], deque[int]] = defaultdict(deque)
        for place, spend in enumerate(group):
            if spend.kind == "transfer":
                moved[spend.to, spend.amount].append(place)
            elif word := self._accepted.get(
                (spend.tx_hash or b"", spend.contract or "", spend.nonce or b"")
            ):
                self._by_word[spend.tx_hash, spend.contract].add(word)
        bound: set[int] = set()
        for place, spend in enumerate(group):
            payment = self._payments.get(spend.nonce or b"")
            if (
                payment is not None
                and spend.contract == payment.contract
                and payment.payment not in self.settled
                and (transfers := moved[payment.to, payment.amount])
            ):
                self.settled[payment.payment] = spend
                bound |= {place, transfers.popleft()}
        if len(bound) < len(group):
            left = [spend for place, spend in enumerate(group) if place not in bound]
            self._part(sorted(left, key=lambda spend: spend.log_index or 0))

    def _part(self, left: Iterable[Spend]) -> None:
        """What no payment explains of a transaction: to each authorization the next transfer, or
        else one that is told before it."""
        used, moved = deque[Spend](), deque[Spend]()
        for spend in left:
            if spend.kind == "authorization":
                used.append(spend)
            elif used:
                self._stray(used.popleft(), spend)
            else:
                moved.append(spend)
        for spend in used:
            self._stray(spend, moved.popleft() if moved else None)
        self.strays += [("transfer", spend, None) for spend in moved]

    def _stray(self, spend: Spend, transfer: Spend | None) -> None:
        payment = self._payments.get(spend.nonce or b"")
        told = spend
        if transfer is not None:
            told = replace(spend, to=transfer.to, amount=transfer.amount)
        if payment is None:
            self.strays.append(("orphan", told, None))
        elif spend.contract != payment.contract or payment.payment in self.settled:
            self.strays.append(("reused", told, payment.payment))
        else:
            kind = "other_amount"
            if transfer is None or transfer.to != payment.to:
                kind = "no_transfer" if transfer is None else "other_payee"
            self._differing.add(payment.payment)
            self.strays.append((kind, told, payment.payment))

    def incidents(self, named: Collection[str], span: Span) -> list[Incident]:
        """The strays, each with what it makes of the file, and the account's own transactions."""
        found = []
        accounted = set()
        for kind, spend, payment in self.strays:
            of_named = f"{self.network}/erc20:{spend.contract}" in named
            if spend.sent_by_key or (of_named and kind == "transfer"):
                # It took a transaction of the key: this one, or one that gave an allowance. What
                # a stranger's contract says took none.
                accounted.add(spend.tx_hash)
            verdict = Verdict.TAMPERED
            if (
                not (of_named or spend.sent_by_key)
                or _block(spend) < span.first
                or self._excused(kind, spend, payment)
            ):
                verdict = Verdict.UNBINDABLE
            elif kind == "orphan" and _block(spend) > span.last:
                verdict = Verdict.PENDING
            found.append(Incident(kind, self.network, verdict, spend, payment))
        if (beside := self.sent - len(accounted)) > 0:
            own = Spend("transactions", count=beside)
            found.append(Incident("transactions", self.network, Verdict.TAMPERED, own))
        return found

    def _excused(self, kind: str, spend: Spend, payment: str | None) -> bool:
        """Whether somebody's word is about it: what an accepted payment did in a transaction where
        its nonce was used, or what the token moved beside that."""
        words = self._by_word.get((spend.tx_hash, spend.contract))
        if not words or kind == "orphan" or spend.sent_by_key:
            return False
        return payment is None or payment in words

    def settlement(self, payment: SignedPayment, time_s: int) -> Settlement:
        """What the chain shows of a payment, as of a block of this time."""
        spend = self.settled.get(payment.payment)
        if spend is not None:
            place = spend.tx_hash, spend.block_number, spend.log_index
            return Settlement(payment, "settled", *place)
        if payment.ended == "accepted":
            return Settlement(payment, "accepted")
        if payment.payment in self._differing:
            return Settlement(payment, "differs")
        if payment.ended == "captured":
            return Settlement(payment, "missing")
        return Settlement(payment, "lapsed" if time_s >= payment.valid_before_s else "open")


def _block(spend: Spend) -> int:
    return spend.block_number or 0
