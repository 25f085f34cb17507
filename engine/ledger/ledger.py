"""Authorise, capture, void, expire: the only code that moves a session's budget.

Every method runs on the writer's thread as part of a batch. Each change of state, its audit record
and its event are written together; memory is changed last.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from engine.audit.approvals import REQUIRED_CODE
from engine.audit.decided import Decided
from engine.errors import Conflict, InvalidInput, TallystickError
from engine.ledger.account import Account
from engine.ledger.accounts import note_differing
from engine.ledger.approval import (
    approval_for,
    approvals_over,
    end_approvals,
    request_approval,
)
from engine.ledger.ask import Ask, ask
from engine.ledger.batch import Answer, Batch
from engine.ledger.budgets import Gauges, Known
from engine.ledger.chain_watch import ChainWatch
from engine.ledger.dry_run import dry_run, left_of, remaining_of, told_now
from engine.ledger.intent import check_follows
from engine.ledger.keeping import keep_decided, keep_ended
from engine.ledger.memory import Memory
from engine.ledger.payment import (
    Payment,
    parse_payment_id,
    session_of,
    stored_payment,
    stored_payments,
)
from engine.ledger.signing import Way, sign_payment
from engine.ledger.stream import budget_stream
from engine.ledger.sweep import sessions_of_holds_over
from engine.ledger.writer import Writer
from engine.policy.budgets import Budget
from engine.policy.decide import Left, decide
from engine.policy.decision import PaymentRequest, Remaining, Standing
from engine.policy.explain import Explanation


class Ledger:
    """All accounts, and what may be done to them."""

    def __init__(
        self, writer: Writer, chain: ChainWatch, *, hold_ttl_ms: int, approval_ttl_ms: int
    ) -> None:
        self._writer = writer
        self._hold_ttl_ms = hold_ttl_ms
        self._approval_ttl_ms = approval_ttl_ms
        self._chain = chain
        self.memory = Memory(writer)
        self._budgets = self.memory.budgets

    def authorise(
        self,
        session_id: str,
        request: PaymentRequest,
        *,
        memo: Mapping[str, Any],
        key: str | None = None,
        capture: bool = False,
    ) -> "Future[Payment]":
        """Decide a payment; hold its amount if it is allowed, and spend it at once with `capture`.

        With a `key` the same request gets the same answer for as long as the session is kept.

        Raises:
            InvalidInput: see `ask`.

        Raises (in the future):
            NotFound: no such session.
            Conflict: the key was used for another request; `field` names what differs.
            Unavailable: the chain has been silent for too long to trust what is known of it.
        """
        asked = ask(session_id, request, memo=memo, key=key, capture=capture)
        return self._writer.submit(
            lambda batch: self.authorise_now(batch, asked), *self.streams((session_id,))
        )

    def authorise_many(self, asks: Sequence[Ask]) -> "Future[list[Payment | TallystickError]]":
        """For `bench/`: payments in order, in one transaction; a refusal stands in its place."""

        def command(batch: Batch) -> list[Payment | TallystickError]:
            return [self._authorise_or_refuse(batch, asked) for asked in asks]

        return self._writer.submit(command, *self.streams({asked.session_id for asked in asks}))

    def capture(
        self, workspace_id: str, payment: str, amount: int | None = None
    ) -> "Future[Payment]":
        """Spend a hold, or `amount` micro-USD of it; what is left of it is free at once.

        Capturing the same amount again changes nothing and is answered as a replay.

        Raises:
            InvalidInput: `amount` is not above zero; to spend nothing is to void.

        Raises (in the future):
            NotFound: no such payment in this workspace.
            InvalidInput: `amount` is above the hold.
            Conflict: the hold has ended in another way.
        """
        if amount is not None and amount <= 0:
            raise InvalidInput("amount", "must be above zero; void the payment instead")
        return self._submit_end(workspace_id, payment, "captured", amount)

    def void(self, workspace_id: str, payment: str) -> "Future[Payment]":
        """Give a hold back. Voiding again changes nothing and is answered as a replay.

        Raises (in the future):
            NotFound: no such payment in this workspace.
            Conflict: the hold has ended in another way.
        """
        return self._submit_end(workspace_id, payment, "voided", 0)

    def remaining(
        self, session_id: str, request: PaymentRequest | None = None
    ) -> "Future[Remaining]":
        """What is left now; of caps on token and merchant, for those of a request. Or NotFound."""
        return self._at_this_moment(
            session_id,
            lambda batch, account, family: remaining_of(account, family, batch.now_ms, request),
        )

    def left(self, session_id: str) -> "Future[Left]":
        """The same, what is left of the session's conditions, and whether it is at a limit."""
        return self._at_this_moment(
            session_id,
            lambda batch, account, family: left_of(
                account, family, batch.now_ms, denied=self._budgets.deny(batch, account)
            ),
        )

    def budgets_used(self, workspace_id: str, *wanted: str) -> "Future[Gauges]":
        """Each limit of the `wanted` budgets of a workspace, or of all, by their ids."""
        streams = [budget_stream(workspace_id, each) for each in wanted]
        return self._writer.submit(
            lambda batch: self._budgets.used(batch, workspace_id, wanted or None), *streams
        )

    def simulate(self, session_id: str, request: PaymentRequest) -> "Future[Explanation]":
        """What `authorise` would decide now, and why, or raise; nothing is changed."""

        def command(batch: Batch) -> Explanation:
            account = self.account(batch, session_id)
            self.check_chain(account)
            return self.foresee(batch, account, request)

        return self._writer.submit(command, *self.streams((session_id,)))

    def streams(self, session_ids: Iterable[str]) -> set[str]:
        """What has to be held to decide for these sessions, as far as it is known."""
        return self.memory.streams(session_ids)

    def _at_this_moment(
        self, session_id: str, told: Callable[[Batch, Account, Budget | None], Answer]
    ) -> "Future[Answer]":
        def command(batch: Batch) -> Answer:
            account = self.account(batch, session_id)
            self.expire(batch, account)
            return told(batch, account, self._budgets.family(batch, account))

        return self._writer.submit(command, *self.streams((session_id,)))

    # What follows runs on the writer's thread, for approvals, intents and what is signed too.

    def account(self, batch: Batch, session_id: str) -> Account:
        """A session's account, as its records are now."""
        return self.memory.accounts.get(batch, session_id)

    def _authorise_or_refuse(self, batch: Batch, asked: Ask) -> Payment | TallystickError:
        return batch.answer(lambda batch: self.authorise_now(batch, asked))

    def authorise_now(self, batch: Batch, asked: Ask) -> Payment:
        """What `authorise` does, as a part of another command."""
        account = self.account(batch, asked.session_id)
        if asked.key is not None and (number := account.keys.get(asked.key)) is not None:
            return self._replay(batch, account, asked, number)
        self.check_chain(account)
        self.expire(batch, account)
        return self.answer(batch, account, asked)

    def foresee(self, batch: Batch, account: Account, request: PaymentRequest) -> Explanation:
        """What `answer` would decide; nothing is changed."""
        above = self._budgets.above(batch, account)
        return dry_run(
            account,
            request,
            batch.now_ms,
            self._chain.time_ms,
            [known.policy for known in above],
            (expiry for known in above for expiry in known.expiries()),
        )

    def answer(
        self,
        batch: Batch,
        account: Account,
        asked: Ask,
        *,
        approval: str | None = None,
        sign: Way | None = None,
    ) -> Payment:
        """Decide and write it down; `approval` has all its grants, and so waives the threshold.

        What is allowed is signed at once where it says how to `sign`.
        """
        budgets = self._budgets.above(batch, account)
        chain_time_ms = self._chain.time_ms if account.on_chain else 0
        standing = account.standing if account.genuine else Standing.MISMATCH
        if not account.genuine:
            note_differing(batch, account)
        decision = decide(
            account.policy,
            standing,
            account.spending,
            asked.request,
            batch.now_ms,
            chain_time_ms=chain_time_ms,
            budgets=[known.policy for known in budgets],
            approved=approval is not None,
        )
        if decision.code == REQUIRED_CODE:
            approval = approval_for(account, asked)
        allowed = decision.allowed
        payment = Payment(
            stream=account.stream,
            number=account.records,
            request={**asked.decided_on, **asked.memo},
            decision=decision.to_json(),
            state="held" if allowed else "denied",
            amount=asked.request.amount,
            captured=0,
            decided_ms=batch.now_ms,
            expires_ms=batch.now_ms + self._hold_ttl_ms if allowed else None,
            closed_ms=None if allowed else batch.now_ms,
            approval_id=approval,
        )
        record = account.record(
            batch,
            "payment.decided",
            Decided(
                approval=approval,
                chain_time_ms=chain_time_ms,
                decision=decision,
                grant_hash=account.grant_hash,
                hold_expires_ms=payment.expires_ms,
                idempotency_key=asked.key,
                payment=payment.id,
                request=asked.decided_on,
                request_digest=asked.digest,
                standing=standing.value,
            ),
        )
        if allowed and asked.capture:
            payment = msgspec.structs.replace(
                payment, state="captured", captured=payment.amount, closed_ms=batch.now_ms
            )
            account.record(batch, "payment.captured", payment.end())
        row = payment.row(record, asked.key, asked.memo_json)
        if sign is not None and allowed:
            row["expires_ms"] = None  # from here on it is the chain's to say
        keep_decided(batch, account, payment, asked, row)
        if sign is not None and allowed:
            payment = sign_payment(batch, account, payment, sign, batch.head(account.stream.id))
        if allowed:
            self._budgets.count(batch, budgets, payment)
        elif approval is not None and asked.digest not in account.approvals:
            request_approval(batch, account, payment, asked.digest, self._approval_ttl_ms)
        # What others spent of its limits is in no record of the session: it is told, not written.
        return self.told_now(batch, account, payment) if account.delegates else payment

    def told_now(
        self, batch: Batch, account: Account, payment: Payment, *, replayed: bool = False
    ) -> Payment:
        """A payment with what is left by now: see `engine.ledger.dry_run.told_now`."""
        family = self._budgets.family(batch, account)
        return told_now(account, family, payment, batch.now_ms, replayed=replayed)

    def _replay(self, batch: Batch, account: Account, asked: Ask, number: int) -> Payment:
        """The earlier answer to the same key.

        Raises:
            Conflict: it was given to another request.
        """
        earlier = stored_payment(batch.read, asked.session_id, number)
        asked.check_same(earlier.request)
        return self.told_now(batch, account, earlier, replayed=True)

    def check_chain(self, account: Account) -> None:
        """Refuse to decide if what is known of the chain is too old: `ChainWatch.check`."""
        self._chain.check(on_chain=account.on_chain)

    def check_stands(self, batch: Batch, account: Account) -> None:
        """Refuse to go on with what was allowed before: `Account.check_stands`."""
        account.check_stands(batch.now_ms, self._chain.time_ms)

    def _submit_end(
        self, workspace_id: str, payment: str, state: Any, amount: int | None
    ) -> "Future[Payment]":
        return self._writer.submit(
            lambda batch: self._end(batch, workspace_id, payment, state, amount),
            *self.streams(session_of(payment)),
        )

    def _end(
        self, batch: Batch, workspace_id: str, payment: str, state: Any, amount: int | None
    ) -> Payment:
        session_id, number = parse_payment_id(payment)
        before = stored_payment(batch.read, session_id, number, workspace_id)
        account = self.account(batch, session_id)
        captured = before.amount if amount is None else amount
        if before.state == state and before.captured == captured:
            return self.told_now(batch, account, before, replayed=True)
        if before.state != "held":
            raise Conflict(f"the payment is {before.state}", code=f"payment_{before.state}")
        expires_ms = account.holds[number].expires_ms
        if expires_ms is None:
            raise Conflict("the payment is signed: only the chain ends it", code="payment_signed")
        if captured > before.amount:
            raise InvalidInput("amount", "is above the amount that was held")
        if batch.now_ms >= expires_ms:
            raise Conflict("the payment is expired", code="payment_expired")
        after = self.close(batch, account, before, state, captured)
        return self.told_now(batch, account, after)

    def close(
        self,
        batch: Batch,
        account: Account,
        before: Payment,
        state: Any,
        captured: int,
        settlement: Mapping[str, Any] | None = None,
    ) -> Payment:
        """End a hold; of a signed payment its record tells how the chain did (`settlement`).

        Raises:
            Unavailable: see `check_kept`; nothing was written.
        """
        budgets = self.check_kept(batch, account, before.request)
        [after] = keep_ended(batch, account, [before], state, captured, settlement)
        self.count(batch, budgets, after)
        return after

    def check_kept(
        self, batch: Batch, account: Account, *requests: Mapping[str, Any]
    ) -> Sequence[Known]:
        """Be sure that what is about to be written of payments with these requests can be counted
        above the session, and told of the intents that they are made for; returns what counts it.

        A refusal after something was written would cost everybody in the batch what is in memory.

        Raises:
            Unavailable: a budget, or the last record of the workspace, is damaged.
        """
        for request in requests:
            check_follows(batch, account.stream.workspace_id, request)
        return self._budgets.above(batch, account)

    def count(self, batch: Batch, budgets: Sequence[Known], payment: Payment) -> None:
        """Enter in the budgets above the session that less counts of a payment, or until when."""
        self._budgets.count(batch, budgets, payment)

    def expire(self, batch: Batch, account: Account, holds_max: int | None = None) -> int:
        """End what is over; returns how many holds were.

        Raises:
            NotFound, Unavailable: what is over cannot be read, or see `check_kept`; nothing was
                written.
        """
        numbers = account.due(batch.now_ms)[:holds_max]
        due = stored_payments(batch.read, account.stream.id, numbers)
        if due or approvals_over(account, batch.now_ms):
            budgets = self.check_kept(batch, account, *(each.request for each in due))
            end_approvals(batch, account)
            for over in keep_ended(batch, account, due, "expired", 0):
                self.count(batch, budgets, over)
        return len(due)

    def holds_over(self, batch: Batch, but: Collection[str]) -> Mapping[str, int]:
        """How many holds are over, by their sessions; but not of these."""
        counts = Counter(sessions_of_holds_over(batch, but))
        batch.hold(counts)
        self.memory.prepare(batch, counts)
        return counts

    def end_holds(self, batch: Batch, session_id: str, count: int) -> int:
        """End so many of the holds of a session that are over; returns how many were."""
        return self.expire(batch, self.account(batch, session_id), count)
