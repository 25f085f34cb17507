"""What is kept of a payment when it is decided and when its hold ends: its row and its event.

The caller sees to the budgets above the session.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from engine.db.tables import Decision, table
from engine.ledger.account import Account
from engine.ledger.ask import Ask
from engine.ledger.batch import Batch
from engine.ledger.events import tell
from engine.ledger.payment import Payment, record_id

_decisions = table(Decision)


def keep_decided(
    batch: Batch, account: Account, payment: Payment, asked: Ask, row: dict[str, Any]
) -> None:
    """Write the payment's row and event, beside its record; then let memory follow."""
    batch.insert(_decisions, row)
    tell(batch, account, payment)
    if asked.key is not None:
        account.keys[asked.key] = payment.number
    account.decided(
        payment.number,
        payment.decided_ms,
        asked.request,
        allowed=payment.state != "denied",
        rule=payment.decision["rule"],
        expires_ms=payment.expires_ms,
        approved=None if payment.approval_id is None else asked.digest,
        to_sign=None if asked.terms is None else asked.digest,
        retry_at_ms=payment.decision["evidence"].get("retry_at_ms"),
    )
    if payment.state == "captured":
        account.ended(payment.number, payment.captured)


def keep_ended(
    batch: Batch,
    account: Account,
    before: Payment,
    state: Any,
    captured: int,
    settlement: Mapping[str, Any] | None,
) -> Payment:
    """Record the end of a hold, change the payment's row and tell; then let memory follow."""
    after = msgspec.structs.replace(before, state=state, captured=captured, closed_ms=batch.now_ms)
    account.record(batch, f"payment.{state}", after.end(settlement))
    batch.update(
        sa.update(_decisions)
        .where(_decisions.c.id == record_id(after.session_id, after.number))
        .values(state=state, captured=captured, closed_ms=batch.now_ms)
    )
    tell(batch, account, after)
    account.ended(after.number, captured)
    return after
