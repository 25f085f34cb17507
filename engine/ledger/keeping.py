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
    held: Sequence[Payment],
    state: Any,
    captured: int,
    settlement: Mapping[str, Any] | None = None,
) -> list[Payment]:
    """Record the end of holds, tell, and let memory follow; then change the payments' rows.

    Those of many holds are changed together. Everybody in the batch waits for all of them, and one
    by one each would take longer than it took to make.
    """
    ended = []
    for before in held:
        after = msgspec.structs.replace(
            before, state=state, captured=captured, closed_ms=batch.now_ms
        )
        account.record(batch, f"payment.{state}", after.end(settlement))
        tell(batch, account, after)
        account.ended(after.number, captured)
        ended.append(after)
    for at in range(0, len(ended), ROWS_TOGETHER):
        numbers = [each.number for each in ended[at : at + ROWS_TOGETHER]]
        ours = record_ids(account.stream.id, numbers)
        batch.update(
            sa.update(_decisions)
            .where(_decisions.c.id.in_(ours))
            .values(state=state, captured=captured, closed_ms=batch.now_ms)
        )
    return ended
