"""Payments that are signed: decided with their terms, and signed once each.

Whoever asks again before anybody knows what became of a payment is answered with that payment, so
that nobody pays twice. With an idempotency key that holds for as long as the session is kept.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal

import sqlalchemy as sa

from engine.audit.approvals import REQUIRED_CODE
from engine.audit.record import Head, record_hash
from engine.db.settlements import Settlement
from engine.db.tables import Approval, Decision, Record, table
from engine.errors import Conflict, NotFound, Unavailable
from engine.ledger.account import Account, number_of
from engine.ledger.batch import Batch
from engine.ledger.discrepancies import SETTLEMENT_CONTRADICTED, resolve
from engine.ledger.ledger import Ledger
from engine.ledger.payment import Payment, parse_payment_id, record_id, session_of, stored_payment
from engine.ledger.settlements import (
    ENDED,
    REPORTABLE,
    UNSEEN,
    SettlementView,
    stored_settlement,
)
from engine.ledger.signing import Way, sign_payment
from engine.ledger.writer import Writer

_approvals = table(Approval)
_decisions = table(Decision)
_records = table(Record)
_settlements = table(Settlement)


class Paying:
    """What may be done to payments that are signed."""

    def __init__(self, writer: Writer, ledger: Ledger) -> None:
        self._writer = writer
        self._ledger = ledger

    def pay(self, ways: Sequence[Way]) -> "Future[Payment]":
        """Hold and record what is to be signed: the first of `ways` that the policy allows.

        They are one request of one session with one key, the cheapest way first. If none is
        allowed the denial that is recorded is that of the first that an approval would let pass,
        else of the first.

        Raises (in the future):
            NotFound: no such session.
            Conflict: the key was used for another request (`field` names what differs); or the
                payment is over, as the code says; or `session_not_active`: it was granted and not
                signed, and the session may not pay any more; or `payment_outcome_unknown`: its
                signature is not valid any more, and nobody knows yet whether it was used.
            Unavailable: the chain has been silent for too long to trust what is known of it.
        """
        session_id = ways[0].asked.session_id
        return self._writer.submit(
            lambda batch: self._pay(batch, ways), *self._ledger.streams((session_id,))
        )

    def refuse(self, session_id: str, told: Mapping[str, Any]) -> "Future[None]":
        """Record that none of the ways to pay that were offered is one; `told` is the record.

        Raises (in the future):
            NotFound: no such session.
            Conflict: the key was used for a payment, whose terms are not among these.
        """

        def command(batch: Batch) -> None:
            account = self._ledger.account(batch, session_id)
            if told["idempotency_key"] in account.keys:
                raise Conflict(
                    "this idempotency key was used for another request: terms differs",
                    code="idempotency_key_reused",
                    field="terms",
                )
            account.record(batch, "payment.refused", dict(told))

        return self._writer.submit(command, *self._ledger.streams((session_id,)))

    def report(
        self, workspace_id: str, payment: str, tx_hash: bytes | None, *, success: bool = True
    ) -> "Future[SettlementView]":
        """Keep what somebody says became of a payment: a transaction, or None for nobody knows.

        One that is named without `success` may be mined yet or not: it is kept, and nobody knows.
        It changes nothing once the chain has said anything.

        Raises (in the future):
            NotFound: no such payment in this workspace.
            Conflict: it is not signed.
        """
        session_id, number = parse_payment_id(payment)

        def command(batch: Batch) -> SettlementView:
            stored_payment(batch.read, session_id, number, workspace_id)
            before = stored_settlement(batch.read, session_id, number)
            if before is None:
                raise Conflict("the payment is not signed", code="payment_not_signed")
            if before.state not in REPORTABLE or (tx_hash is None and before.tx_hash is not None):
                return before
            if before.state == "submitted" and not success:
                return before
            state = "submitted" if tx_hash is not None and success else "unknown"
            _change(batch, session_id, number, state=state, tx_hash=tx_hash)
            after = stored_settlement(batch.read, session_id, number)
            assert after is not None
            return after

        return self._writer.submit(command, *self._ledger.streams(session_of(payment)))

    def sent(self, payment: str, tx_hash: bytes) -> "Future[None]":
        """Keep that we ourselves sent a transaction for a signed payment; a block tells more.

        Raises (in the future):
            NotFound: there is no such payment.
        """
        session_id, number = parse_payment_id(payment)

        def command(batch: Batch) -> None:
            before = stored_settlement(batch.read, session_id, number)
            if before is None:
                raise NotFound("no such payment", code="payment_not_found")
            if before.state not in ENDED and before.block_number is None:
                _change(batch, session_id, number, state="pending", tx_hash=tx_hash)

        return self._writer.submit(command, *self._ledger.streams(session_of(payment)))

    # What follows runs on the writer's thread.

    def settle(
        self,
        batch: Batch,
        payment: str,
        state: Literal["captured", "expired"],
        settlement: Mapping[str, Any],
    ) -> Payment:
        """The chain ended a signed payment for good; its budget is spent, or free again.

        `settlement` tells how, as the record has it: of a capture `network`, `asset`, `tx_hash`,
        `block_number`, `block_hash`, `log_index`, `amount` and `to`, of an expiry `network`,
        `block_number`, `block_hash` and `block_time_s`; hashes as 0x and hexadecimal digits.

        Raises:
            NotFound: there is no such payment.
            Conflict: it is not signed, or has ended.
        """
        after = self._end(batch, payment, state, settlement)
        values: dict[str, Any] = {
            "state": "final" if state == "captured" else "expired",
            "block_number": settlement["block_number"],
            "block_hash": bytes.fromhex(settlement["block_hash"].removeprefix("0x")),
        }
        if state == "captured":
            values["tx_hash"] = bytes.fromhex(settlement["tx_hash"].removeprefix("0x"))
        _change(batch, after.session_id, after.number, **values)
        return after

    def accept(self, batch: Batch, payment: str, settlement: Mapping[str, Any]) -> Payment:
        """An operator ends a signed payment that the chain contradicts: its budget is spent.

        `settlement` tells why, as the record has it: `network`, `accepted_by` (a key's id),
        `reason`, `contradiction` and the `transactions` that used the nonce; and of the final block
        as of which the chain was asked `block_number`, `block_hash` and `block_time_s`.

        Raises:
            NotFound: there is no such payment.
            Conflict: it is not signed, or has ended.
        """
        after = self._end(batch, payment, "captured", settlement)
        # There is nothing left for reconciliation to compare.
        values = {"state": "accepted", "compared_ms": batch.now_ms}
        _change(batch, after.session_id, after.number, **values)
        resolve(batch, SETTLEMENT_CONTRADICTED, payment)
        return after

    def _end(
        self,
        batch: Batch,
        payment: str,
        state: Literal["captured", "expired"],
        settlement: Mapping[str, Any],
    ) -> Payment:
        session_id, number = parse_payment_id(payment)
        before = stored_payment(batch.read, session_id, number)
        account = self._ledger.account(batch, session_id)
        hold = account.holds.get(number)
        if hold is None or hold.expires_ms is not None:
            raise Conflict("the payment is not signed and open", code="payment_not_signed")
        captured = before.amount if state == "captured" else 0
        return self._ledger.close(batch, account, before, state, captured, settlement)

    def _pay(self, batch: Batch, ways: Sequence[Way]) -> Payment:
        account = self._ledger.account(batch, ways[0].asked.session_id)
        found = self._earlier(batch, account, ways)
        if found is not None:
            return self._again(batch, account, *found)
        heard = [way for way in ways if way.from_block is not None]
        if not heard:
            raise _silent()
        self._ledger.check_chain(account)
        self._ledger.expire(batch, account)
        way = self._chosen(batch, account, heard)
        return self._ledger.answer(batch, account, way.asked, sign=way)

    def _chosen(self, batch: Batch, account: Account, ways: Sequence[Way]) -> Way:
        if len(ways) == 1:
            return ways[0]
        wanting = None
        for way in ways:
            decision = self._ledger.foresee(batch, account, way.asked.request).decision
            if decision.allowed:
                return way
            if wanting is None and decision.code == REQUIRED_CODE:
                wanting = way
        return wanting or ways[0]

    def _earlier(
        self, batch: Batch, account: Account, ways: Sequence[Way]
    ) -> tuple[Payment, Way] | None:
        """The payment that is the answer to the same request, and which of the ways it went."""
        session_id, key = account.stream.id, ways[0].asked.key
        number = None if key is None else account.keys.get(key)
        if number is not None:
            earlier = stored_payment(batch.read, session_id, number)
            way = max(ways, key=lambda each: _likeness(each, earlier))
            way.asked.check_same(earlier.request)
            return _granted(batch, earlier) or earlier, way
        for way in ways:
            for number in account.to_sign.get(way.asked.digest, ()):
                earlier = stored_payment(batch.read, session_id, number)
                if _answers(batch, account, earlier, key):
                    return earlier, way
        return None

    def _again(self, batch: Batch, account: Account, earlier: Payment, way: Way) -> Payment:
        if earlier.state in ("voided", "expired"):
            raise _over(earlier)
        if earlier.state != "held":
            return self._ledger.told_now(batch, account, earlier, replayed=True)
        expires_ms = account.holds[earlier.number].expires_ms
        if expires_ms is not None:
            return self._sign(batch, account, earlier, way, expires_ms)
        settlement = stored_settlement(batch.read, earlier.session_id, earlier.number)
        assert settlement is not None
        if settlement.valid_before_s <= max(batch.now_ms // 1000, way.chain_time_s):
            raise Conflict(
                "the signature is not valid any more, and whether it was used is not known yet",
                code="payment_outcome_unknown",
                payment_id=earlier.id,
                valid_before_s=settlement.valid_before_s,
            )
        return self._ledger.told_now(batch, account, earlier, replayed=True)

    def _sign(
        self, batch: Batch, account: Account, held: Payment, way: Way, expires_ms: int
    ) -> Payment:
        """Sign what an approval let pass."""
        if batch.now_ms >= expires_ms:
            raise _over(held)
        if way.from_block is None:
            raise _silent()
        self._ledger.check_chain(account)
        self._ledger.check_stands(batch, account)  # it was decided when it was granted
        budgets = self._ledger.check_kept(batch, account)
        own = record_id(held.session_id, held.number)
        body = batch.read(sa.select(_records.c.body).where(_records.c.id == own)).scalar_one()
        decided = Head(held.number + 1, record_hash(body))
        signed = sign_payment(batch, account, held, way, decided)
        batch.update(sa.update(_decisions).where(_decisions.c.id == own).values(expires_ms=None))
        self._ledger.count(batch, budgets, signed)
        return self._ledger.told_now(batch, account, signed)


def _likeness(way: Way, earlier: Payment) -> int:
    """How many of the terms are those of an earlier payment."""
    told = earlier.request.get("terms", {})
    return sum(told.get(name) == value for name, value in way.terms.items())


def _granted(batch: Batch, denied: Payment) -> Payment | None:
    """The payment that was made when the approval was granted that a denied one waited for."""
    if denied.state != "denied" or denied.approval_id is None:
        return None
    number = batch.read(
        sa.select(_approvals.c.decided_number).where(
            _approvals.c.session_id == denied.session_id,
            _approvals.c.number == number_of(denied.approval_id),
            _approvals.c.state == "granted",
        )
    ).scalar()
    return None if number is None else stored_payment(batch.read, denied.session_id, number)


def _answers(batch: Batch, account: Account, held: Payment, key: str | None) -> bool:
    """Whether a held payment of the same request is the answer to who asks with a new key or none.

    Without a key it is until somebody has seen it arrive. A new key asks for another payment, but
    for one that an approval let pass: that was granted once, for whoever asks.
    """
    expires_ms = account.holds[held.number].expires_ms
    if expires_ms is not None:
        return batch.now_ms < expires_ms
    if key is not None and held.approval_id is None:
        return False
    settlement = stored_settlement(batch.read, held.session_id, held.number)
    if settlement is None:
        return False
    if held.request["terms"]["resource"] is None and settlement.block_number is None:
        return True  # a transfer: that we sent it is no sign that whoever asks has heard of it
    return settlement.state in UNSEEN


def _over(payment: Payment) -> Conflict:
    state = "expired" if payment.state == "held" else payment.state
    return Conflict(f"the payment is {state}", code=f"payment_{state}", payment_id=payment.id)


def _silent() -> Unavailable:
    return Unavailable("no chain of an offer answers now", code="chain_unavailable")


def _change(batch: Batch, session_id: str, number: int, **values: Any) -> None:
    ours = _settlements.c.session_id == session_id, _settlements.c.number == number
    batch.update(sa.update(_settlements).where(*ours).values(**values, updated_ms=batch.now_ms))
