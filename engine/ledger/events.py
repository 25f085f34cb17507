"""What a listener learns of payments."""

from engine.ledger.account import Account
from engine.ledger.payment import Payment
from engine.ledger.writer import Batch
from engine.policy.rules import WINDOW_RULES


def tell(batch: Batch, account: Account, payment: Payment) -> None:
    """Put into the outbox what a payment's new state means to others.

    That a limit is reached is told once in a row of denials; the account has not followed this one.
    """
    if payment.state == "denied":
        if payment.decision["rule"] in WINDOW_RULES and not account.limit_reached:
            _event(batch, payment, "agent.session.limit_reached")
        return
    name = {"held": "created", "captured": "confirmed"}.get(payment.state, payment.state)
    _event(batch, payment, f"payment.{name}")


def _event(batch: Batch, payment: Payment, name: str) -> None:
    batch.event(payment.stream, name, payment.told())
