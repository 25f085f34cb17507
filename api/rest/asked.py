"""What a body asks for: of the policy, or as a session."""

from dataclasses import replace
from typing import Any

from api.rest.queries import SessionsQuery
from api.rest.schemas import CreatePayment, DraftPolicy, PaymentBody, SessionBody
from engine.audit.backtest import Draft
from engine.engine import Engine
from engine.errors import InvalidInput
from engine.policy.conditions import parse_conditions
from engine.policy.decision import PaymentRequest, Policy
from engine.policy.identifiers import IdentifierError, normalise_asset
from engine.policy.limits import Limits
from engine.sessions.creation import DEFAULT_PERMISSIONS
from engine.sessions.lifecycle import Wanted
from engine.sessions.merchants import check_merchants
from engine.sessions.sentences import in_order
from engine.sessions.session import NewSession
from engine.workspaces.access import Operator, SessionHolder
from engine.workspaces.agent_access import AgentCaller

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


def new_session(
    engine: Engine,
    body: SessionBody,
    wallet: str,
    *,
    mint_pkp: bool,
    approvals_required: int | None,
    by: str,
    parent_id: str | None = None,
) -> NewSession:
    """The session that a body asks for; `wallet` is its owner's, by whoever names it.

    Raises:
        InvalidInput: a token is none.
    """
    limits = body.limits
    return NewSession(
        type=body.type,
        label=body.label,
        agent_id=body.agent_id,
        agent_name=body.agent_name,
        user_wallet=wallet,
        owner=wallet.lower() if wallet[:2] in ("0x", "0X") else None,
        limits=Limits(
            per_transaction=limits.max_per_transaction,
            per_day=limits.max_per_day,
            per_week=limits.max_per_week,
            per_month=limits.max_per_month,
            approval_above=limits.require_approval_above,
        ),
        permissions=tuple(dict.fromkeys(body.permissions or ())),
        merchants=tuple(dict.fromkeys(body.allowed_merchants or ())),
        tokens=tuple(dict.fromkeys(asset(engine, name) for name in body.allowed_tokens or ())),
        chains=tuple(dict.fromkeys(body.allowed_chains or ())),
        duration_ms=body.duration_hours,
        mint_pkp=mint_pkp,
        await_consent=body.await_consent,
        metadata_json=body.metadata or "{}",
        conditions=tuple(body.conditions),
        parent_id=parent_id,
        approvals_required=approvals_required,
        by=by,
    )


def wanted_sessions(
    caller: Operator | SessionHolder | AgentCaller, asked: SessionsQuery, now_ms: int
) -> Wanted:
    """The sessions that a list is of: an operator sees the workspace's, an agent its own, and the
    holder of a token that session and all beneath it."""
    wanted = Wanted(now_ms, asked.status, asked.type, asked.agent_id, asked.label)
    if isinstance(caller, AgentCaller):
        return replace(wanted, of_agent=caller.agent_id)
    if isinstance(caller, SessionHolder):
        return replace(wanted, top=caller.session_id)
    return wanted


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
            if field == "merchants" and listed is not None:
                check_merchants(listed, name)
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
