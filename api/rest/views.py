"""What callers get to see of sessions and payments. Money leaves as numbers in dollars."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from api.rest.answers import (
    ApprovalAnswer,
    ConditionLeft,
    DeniedPayment,
    PaymentAnswer,
    RemainingAnswer,
    SessionAnswer,
    SettlementAnswer,
    SignedPayment,
    SmartPaymentAnswer,
)
from api.rest.budget_answers import BudgetAnswer
from api.rest.errors import error_body
from api.rest.verification_answers import VerificationAnswer
from engine.audit.approvals import REQUIRED_CODE
from engine.audit.evidence import NOT_PROVEN
from engine.audit.replay import LIVE_STATES
from engine.audit.report import Report, summary
from engine.engine import Engine
from engine.ledger.approval import WAITING_MAX, Approval
from engine.ledger.payment import Payment, State
from engine.ledger.settlements import SettlementView
from engine.payments.gate import Signed
from engine.policy.conditions import Cap
from engine.policy.decide import Left
from engine.policy.decision import Remaining
from engine.policy.money import plain_usd, usd_number
from engine.policy.spending import Gauge
from engine.sessions.session import SessionView
from engine.workspaces.budgets import BudgetView


@lru_cache(maxsize=64)  # everything that is decided together has the same times
def time_text(milliseconds: int) -> str:
    """ISO 8601 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def usd(micro: int | None) -> int | float | None:
    """Dollars as a JSON number, exact; None (unlimited) stays None."""
    return None if micro is None else usd_number(micro)


def session_json(engine: Engine, view: SessionView, left: Left) -> SessionAnswer:
    """A session in the shape that agent-session clients read, and what is ours beside it."""
    limits, remaining = view.grant.limits, left.remaining
    over = view.state in LIVE_STATES and engine.clock() >= view.expires_ms
    ended_ms = view.expires_ms if over else view.ended_ms
    active = view.state == "active" and not over
    # By itself: until the window frees what was denied last. What fits is allowed all the same.
    frees_ms = left.frees_ms if active else None
    body: SessionAnswer = {
        "id": view.id,
        "parent_id": view.parent_id,
        "type": view.type,
        "label": view.label,
        "agent_id": view.agent_id,
        "agent_name": view.agent_name,
        "user_wallet": view.user_wallet,
        "limits": {
            "max_per_transaction": usd(limits.per_transaction),
            "max_per_day": usd(limits.per_day),
            "max_per_week": usd(limits.per_week),
            "max_per_month": usd(limits.per_month),
            "require_approval_above": usd(limits.approval_above),
        },
        "allowed_merchants": list(view.grant.merchants) or None,
        "allowed_tokens": list(view.grant.tokens) or None,
        "allowed_chains": list(view.grant.chains) or None,
        "permissions": list(view.grant.permissions),
        "conditions": list(view.grant.conditions),
        "restrictions": list(view.restrictions),
        "policy_version": view.policy_version,
        "approvals_required": view.approvals_required,
        "status": "expired" if over else "paused" if frees_ms is not None else view.state,
        "is_active": active and frees_ms is None,
        "resumes_at": None if frees_ms is None else time_text(frees_ms),
        "created_at": time_text(view.created_ms),
        "expires_at": time_text(view.expires_ms),
        "ended_at": None if ended_ms is None else time_text(ended_ms),
        "remaining_today": usd(remaining.per_day),
        "remaining_this_week": usd(remaining.per_week),
        "remaining_this_month": usd(remaining.per_month),
        "remaining_by_condition": [_condition_left(cap, amount) for cap, amount in left.caps],
        "mint_pkp": view.mint_pkp,
        "consent": view.consent,
        "grant_hash": "0x" + view.grant_hash.hex(),
        "metadata": json.loads(view.metadata_json),
    }
    if view.pkp_address is not None:
        body["pkp_address"] = view.pkp_address
        body["pkp_token_id"] = "0x" + view.token_id.hex()
    if view.state == "awaiting_consent":
        body["typed_data"] = _typed_data(engine, view)
    return body


def _condition_left(cap: Cap, left: int) -> ConditionLeft:
    if cap.of == "payments":
        return {"condition": str(cap), "remaining": left, "unit": "payments"}
    return {"condition": str(cap), "remaining": usd_number(left), "unit": "USD"}


def budget_json(view: BudgetView, gauges: Sequence[Gauge]) -> BudgetAnswer:
    """A budget, and what of its limits is used by `gauges`, unless these are of other limits."""
    limits = view.limits
    same = {gauge.cap for gauge in gauges} == set(limits.caps())
    used = {(gauge.cap.of, gauge.cap.per): gauge.used for gauge in gauges}
    return {
        "id": view.id,
        "agent_id": view.agent_id,
        "limits": {
            "max_payments_per_hour": limits.payments_per_hour,
            "max_payments_per_day": limits.payments_per_day,
            "max_per_day": usd(limits.per_day),
            "max_per_week": usd(limits.per_week),
            "max_per_month": usd(limits.per_month),
            "max_lifetime": usd(limits.lifetime),
        },
        "used": {
            "payments_per_hour": used.get(("payments", "hour")),
            "payments_per_day": used.get(("payments", "day")),
            "per_day": usd(used.get(("sum", "day"))),
            "per_week": usd(used.get(("sum", "week"))),
            "per_month": usd(used.get(("sum", "month"))),
            "lifetime": usd(used.get(("sum", "lifetime"))),
        }
        if same
        else None,
        "version": view.version,
        "updated_at": time_text(view.updated_ms),
    }


_PAYMENT_STATUS: dict[State, Literal["pending", "confirmed", "failed", "expired"]] = {
    "held": "pending",
    "captured": "confirmed",
    "voided": "failed",
    "denied": "failed",
    "expired": "expired",
}

_SHOWN_BY_THE_CHAIN = ("pending", "confirmed", "final")
"""States of a settlement whose transaction is not only what somebody reported."""

_REMAINING = {
    "per_day": "Tallystick-Remaining-Today",
    "per_week": "Tallystick-Remaining-This-Week",
    "per_month": "Tallystick-Remaining-This-Month",
    "lifetime": "Tallystick-Remaining-Lifetime",
    "payments": "Tallystick-Remaining-Payments",
    "token": "Tallystick-Remaining-With-Token",
    "merchant": "Tallystick-Remaining-To-Merchant",
}
REMAINING_HEADERS: dict[str, Any] = {
    "headers": {
        name: {
            "description": "What is left at the moment of this answer; none: unlimited",
            "schema": {"type": "string", "pattern": r"^[0-9]+(\.[0-9]{1,6})?$"},
        }
        for name in _REMAINING.values()
    }
}
"""For OpenAPI."""


def remaining_headers(left: Mapping[str, int | None]) -> dict[str, str]:
    """What the limits leave now, for the headers of every answer about one payment."""
    return {
        _REMAINING[name]: str(amount) if name == "payments" else plain_usd(amount)
        for name, amount in left.items()
        if amount is not None
    }


def remaining_json(left: Remaining) -> RemainingAnswer:
    """The same for a body."""
    return {
        "today": usd(left.per_day),
        "this_week": usd(left.per_week),
        "this_month": usd(left.per_month),
        "lifetime": usd(left.lifetime),
        "payments": left.payments,
        "with_token": usd(left.token),
        "to_merchant": usd(left.merchant),
    }


def payment_json(
    payment: Payment,
    left: Remaining | None = None,
    *,
    settlement: SettlementView | None = None,
) -> PaymentAnswer:
    """A payment: what was asked, what was decided, and what became of the hold.

    What remains is as the decision left it, unless `left` says how it is now.
    """
    request, decision = payment.request, payment.decision
    remaining = decision["remaining"] if left is None else left.to_json()
    payment_id = payment.id
    body: PaymentAnswer = {
        "id": payment_id,
        "payment_id": payment_id,
        "session_id": payment.session_id,
        "session_type": payment.stream.session_type,
        "session_label": payment.stream.label,
        "merchant_id": request["merchant"],
        "status": _PAYMENT_STATUS[payment.state],
        "state": payment.state,
        "amount_usd": (amount := usd_number(payment.amount)),
        "amount": amount,
        "captured_usd": usd_number(payment.captured),
        "currency": "USD",
        "payment_token": request["token"],
        "chain": request["chain"],
        "description": request["description"],
        "metadata": json.loads(request["metadata_json"]),
        "created_at": time_text(payment.decided_ms),
        "expires_at": None if payment.expires_ms is None else time_text(payment.expires_ms),
        "closed_at": None if payment.closed_ms is None else time_text(payment.closed_ms),
        "approval_id": payment.approval_id,
        "decision": {
            "allowed": decision["allowed"],
            "code": decision["code"],
            "rule": decision["rule"],
            "reason": decision["reason"],
            "evidence": decision["evidence"],
        },
        "remaining_today": usd(remaining["per_day"]),
        "remaining_this_week": usd(remaining["per_week"]),
        "remaining_this_month": usd(remaining["per_month"]),
    }
    if payment.state == "captured" and body["closed_at"] is not None:
        body["confirmed_at"] = body["closed_at"]
    if "customer_wallet" in request:
        body["customer_wallet"] = request["customer_wallet"]
    if "customer_email" in request:
        body["customer_email"] = request["customer_email"]
    if "redirect_url" in request:
        body["redirect_url"] = request["redirect_url"]
    if "product_details_json" in request:
        body["product_details"] = json.loads(request["product_details_json"])
    if "terms" in request:
        body["terms"] = request["terms"]
    if settlement is not None:
        told = body["settlement"] = settlement_json(settlement)
        if told["state"] in _SHOWN_BY_THE_CHAIN and told["tx_hash"] is not None:
            body["transaction_signature"] = told["tx_hash"]
    return body


def settlement_json(settlement: SettlementView) -> SettlementAnswer:
    """How far the chain is with a payment."""
    tx_hash = settlement.tx_hash
    return {
        "state": settlement.state,
        "network": settlement.network,
        "asset": settlement.asset,
        "valid_before_s": settlement.valid_before_s,
        "tx_hash": None if tx_hash is None else "0x" + tx_hash.hex(),
        "block_number": settlement.block_number,
    }


def as_decided(payment: Payment) -> Remaining | None:
    """What its decision left, where the record does not say it all; a replay tells the record."""
    return None if payment.replayed else payment.left


def signed_payment_json(signed: Signed) -> SignedPayment:
    """A payment with its signature."""
    settlement, authorization = signed.settlement, signed.authorization
    return {
        **payment_json(signed.payment, as_decided(signed.payment), settlement=settlement),
        "payment": dict(signed.payload),
        "payment_signature": signed.header,
        "network": settlement.network,
        "asset": settlement.asset,
        "nonce": authorization.wire["nonce"],
        "valid_before_s": authorization.valid_before_s,
    }


def smart_payment_json(payment: Payment, left: Remaining | None = None) -> SmartPaymentAnswer:
    """The answer to a smart payment."""
    closed_ms = payment.closed_ms or payment.decided_ms
    return {
        **payment_json(payment, left),
        "gasless_used": False,
        "settlement_complete": False,
        "confirmed_in_ms": closed_ms - payment.decided_ms,
        "requires_signature": False,
        "next_steps": "The amount is spent from the session's budget; settle with the merchant.",
    }


def denied_json(payment: PaymentAnswer) -> DeniedPayment:
    """A denied payment, which is an error at the same time."""
    decision, reason = payment["decision"], payment["decision"]["reason"]
    if decision["code"] == REQUIRED_CODE and payment["approval_id"] is None:
        reason += f" {WAITING_MAX} of the session wait already, so none was asked for."
    denial = error_body(
        decision["code"],
        reason,
        rule=decision["rule"],
        evidence=decision["evidence"],
    )
    return {**payment, **denial}


def approval_json(approval: Approval) -> ApprovalAnswer:
    """An approval, and what it is for."""
    request = approval.request
    return {
        "id": approval.id,
        "session_id": approval.session_id,
        "session_type": approval.stream.session_type,
        "session_label": approval.stream.label,
        "state": approval.state,
        "digest": approval.digest,
        "policy_version": approval.policy_version,
        "approvals_required": approval.required,
        "grants": [
            {
                "key_id": given.key_id,
                "granted_at": time_text(given.at_ms),
                "counts": given.counts,
            }
            for given in approval.grants
        ],
        "denied_by": approval.denied_by,
        "reason": approval.reason,
        "code": approval.code,
        "denied_payment_id": approval.denied_payment_id,
        "payment_id": approval.payment_id,
        "amount_usd": usd_number(request["amount_micro_usd"]),
        "currency": "USD",
        "merchant_id": request["merchant"],
        "payment_token": request["token"],
        "chain": request["chain"],
        "capture_method": "automatic" if request["capture"] else "manual",
        "description": request["description"],
        "metadata": json.loads(request["metadata_json"]),
        "created_at": time_text(approval.requested_ms),
        "expires_at": time_text(approval.expires_ms),
        "ended_at": None if approval.ended_ms is None else time_text(approval.ended_ms),
    }


def verification_json(report: Report, *, chain: str, registry: str) -> VerificationAnswer:
    """What verification found; what it does not prove is said each time."""
    said: Any = summary(report)
    return {
        "verdict": said["verdict"],
        "exit_code": said["exit_code"],
        "reason": said["reason"],
        "checks": said["checks"],
        "chain": chain,
        "registry": registry,
        "not_proven": list(NOT_PROVEN),
    }


def _typed_data(engine: Engine, view: SessionView) -> dict[str, Any]:
    """EIP-712 data to sign. A `uint64` can pass 2^53, where JavaScript loses digits: as text."""
    typed_data = view.grant.typed_data(engine.sessions.domain)
    limits = {name: str(value) for name, value in typed_data["message"]["limits"].items()}
    return {**typed_data, "message": {**typed_data["message"], "limits": limits}}
