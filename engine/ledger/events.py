"""What a listener learns of payments."""

from engine.ledger.account import Account
from engine.ledger.batch import Batch
from engine.ledger.intent import follow_payment
from engine.ledger.payment import Payment
from engine.policy.rules import WINDOW_RULES


def tell(batch: Batch, account: Account, payment: Payment) -> None:
    """Put into the outbox what a payment's new state means to others, intents included.

    That a limit is reached is told once, until something is paid or given back, or the window has
    freed what was denied; the account has not followed this payment.
    """
    if payment.state != "denied":
        name = {"held": "created", "captured": "confirmed"}.get(payment.state, payment.state)
        _event(batch, payment, f"payment.{name}")
    elif payment.decision["rule"] in WINDOW_RULES and not account.at_limit(payment.decided_ms):
        _event(batch, payment, "agent.session.limit_reached")
    follow_payment(batch, payment)


def _event(batch: Batch, payment: Payment, name: str) -> None:
    batch.event(payment.stream, name, payment.told())
