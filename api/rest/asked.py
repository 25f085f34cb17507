"""What a body asks the policy for."""

from dataclasses import replace
from typing import Any

from api.rest.schemas import CreatePayment, DraftPolicy, PaymentBody
from engine.audit.backtest import Draft
from engine.engine import Engine
from engine.errors import InvalidInput
from engine.policy.conditions import parse_conditions
from engine.policy.decision import PaymentRequest, Policy
from engine.policy.identifiers import IdentifierError, normalise_asset
from engine.sessions.creation import DEFAULT_PERMISSIONS
from engine.sessions.sentences import in_order

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


def asset(engine: Engine, name: str) -> str:
    """A token by its symbol on the main chain, or by its CAIP-19 id.

    Raises:
        InvalidInput: it is neither.
    """
    if (token := engine.token(name.upper(), None)) is not None:
        return token.asset
    try:
        return normalise_asset(name)
    except IdentifierError as error:
        raise InvalidInput(
            "allowed_tokens", f"{name!r} is no configured symbol, and {error}"
        ) from error


def drafted(engine: Engine, body: DraftPolicy) -> Draft:
    """The policy that a draft makes of one that is in force; what it leaves out stays as it is.

    Raises:
        InvalidInput: a token or a sentence is none.
    """
    given = body.model_dump(include=body.model_fields_set - {"limits"})
    limits = {_LIMITS[name]: getattr(body.limits, name) for name in body.limits.model_fields_set}
    changes: dict[str, Any] = {}
    for field in ("conditions", "restrictions"):
        if field in given:
            changes[field] = parse_conditions(in_order(given[field], field), field)
    if "permissions" in given:
        changes["permissions"] = frozenset(given["permissions"] or DEFAULT_PERMISSIONS)
    for field in ("merchants", "tokens", "chains"):
        if (name := f"allowed_{field}") in given:
            listed = given[name]
            if field == "tokens" and listed is not None:
                listed = [asset(engine, token) for token in listed]
            changes[field] = None if listed is None else frozenset(listed)

    def draft(policy: Policy) -> Policy:
        return replace(policy, limits=replace(policy.limits, **limits), **changes)

    return draft


_LIMITS = {
    "max_per_transaction": "per_transaction",
    "max_per_day": "per_day",
    "max_per_week": "per_week",
    "max_per_month": "per_month",
    "require_approval_above": "approval_above",
}
