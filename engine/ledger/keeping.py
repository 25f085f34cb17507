"""What is kept of a payment when it is decided and when its hold ends: its row and its event.

The caller sees to the budgets above the session.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from engine.db.database import ROWS_TOGETHER
from engine.db.tables import Decision, table
from engine.ledger.account import Account
from engine.ledger.ask import Ask
from engine.ledger.batch import Batch
from engine.ledger.events import tell
from engine.ledger.payment import Payment, record_ids

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
    after = _end(batch, account, before, state, captured, settlement)
    _change(batch, [after])
    return after


def keep_expired(batch: Batch, account: Account, due: Sequence[Payment]) -> list[Payment]:
    """The same for holds of a session that are over. Everybody in the batch waits for all of them:
    one by one, each would take longer than it took to make."""
    after = [_end(batch, account, each, "expired", 0, None) for each in due]
    for at in range(0, len(after), ROWS_TOGETHER):
        _change(batch, after[at : at + ROWS_TOGETHER])
    return after


def _end(
    batch: Batch,
    account: Account,
    before: Payment,
    state: Any,
    captured: int,
    settlement: Mapping[str, Any] | None,
) -> Payment:
    after = msgspec.structs.replace(before, state=state, captured=captured, closed_ms=batch.now_ms)
    account.record(batch, f"payment.{state}", after.end(settlement))
    tell(batch, account, after)
    account.ended(after.number, captured)
    return after


def _change(batch: Batch, ended: Sequence[Payment]) -> None:
    """The rows of payments of one session that ended in the same way."""
    after, numbers = ended[0], [each.number for each in ended]
    batch.update(
        sa.update(_decisions)
        .where(_decisions.c.id.in_(record_ids(after.session_id, numbers)))
        .values(state=after.state, captured=after.captured, closed_ms=after.closed_ms)
    )
