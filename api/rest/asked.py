"""What a body asks the policy for."""

from api.rest.schemas import CreatePayment, PaymentBody
from engine.engine import Engine
from engine.errors import InvalidInput
from engine.policy.decision import PaymentRequest

DEFAULT_SYMBOL = "USDC"


def payee(body: CreatePayment) -> str | None:
    """Who is to be paid, by either of its two names.

    Raises:
        InvalidInput: they name two.
    """
    if body.merchant_id and body.recipient_wallet and body.merchant_id != body.recipient_wallet:
        raise InvalidInput("recipient_wallet", "names another payee than merchant_id")
    return body.merchant_id or body.recipient_wallet


def payment_request(engine: Engine, body: PaymentBody, merchant: str | None) -> PaymentRequest:
    """The request that the policy decides."""
    symbol = (body.token or DEFAULT_SYMBOL).upper()
    token = engine.token(symbol, body.chain)
    chain = body.chain or engine.deployment.chain
    return PaymentRequest(
        amount=body.amount,
        merchant=merchant,
        # A symbol nobody configured is still asked for and refused by the policy, in its words.
        token=token.asset if token is not None else f"{chain}/symbol:{symbol}",
        chain=chain,
        token_priced=token is not None and token.usd_price is not None,
    )
